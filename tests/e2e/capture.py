"""Looks for words in everything that crosses the node's network devices: `capture.py WORD…`.

Runs inside the node. Says `capturing` once it listens, captures until its standard input ends, and then prints JSON
{frames, bytes, seen: {WORD: how many frames hold it}}.
"""

import json
import select
import socket
import sys

ETH_P_ALL = 3
RECEIVE_BUFFER = 64 << 20


def main():
    words = {word: word.encode() for word in sys.argv[1:]}
    frames, size, seen = 0, 0, dict.fromkeys(words, 0)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, 33, RECEIVE_BUFFER)  # SO_RCVBUFFORCE: whatever the system's limit is
        print("capturing", flush=True)
        ends = False
        while True:
            ready, _, _ = select.select([wire] if ends else [wire, sys.stdin], [], [], 0.2 if ends else None)
            if wire in ready:
                frame, (device, *_) = wire.recvfrom(65536)
                if device == "lo":  # the kubelet and the container runtime talk here, of what tests have pods execute too
                    continue
                frames, size = frames + 1, size + len(frame)
                for word, data in words.items():
                    seen[word] += data in frame
            elif sys.stdin in ready:
                ends = not sys.stdin.read()  # what has arrived until now is still looked at
            elif ends:
                break
    print(json.dumps({"frames": frames, "bytes": size, "seen": seen}))


main()
