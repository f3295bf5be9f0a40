"""Asks the controller for certificates, or for configuration, as anybody on the network could: `sign.py NAMESPACE NAME`.

Runs inside the node, where `kubectl port-forward` leads to the controller. Reads one JSON a line, {method, metadata, message, client},
and answers each with {code, details, answer}: the gRPC status and the first message, base64. `client` is PEM, to show in the handshake.
Standard input begins with the roots (PEM, in JSON) that vouch for the controller, and its end ends the program.
"""

import base64
import json
import re
import subprocess
import sys
import threading

import grpc

SECONDS = 15


def main(namespace, name):
    roots = json.loads(sys.stdin.readline()).encode()
    command = ["kubectl", "port-forward", "-n", namespace, f"service/{name}", ":15110"]
    forward = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())[1]
        for line in sys.stdin:
            with channel(f"127.0.0.1:{port}", f"{name}.{namespace}.svc", roots, json.loads(line)) as (one, asked):
                print(json.dumps(call(one, asked)), flush=True)
    finally:
        forward.terminate()


class channel:
    """A connection for one call, so that each shows its own certificate."""

    def __init__(self, target, name, roots, asked):
        certificate = (asked.get("client") or "").encode() or None
        shown = grpc.ssl_channel_credentials(roots, private_key=certificate, certificate_chain=certificate)
        self.channel = grpc.secure_channel(target, shown, [("grpc.ssl_target_name_override", name)])
        self.asked = asked

    def __enter__(self):
        return self.channel, self.asked

    def __exit__(self, *_):
        self.channel.close()


def call(one, asked):
    answered = threading.Event()

    def messages():
        yield base64.b64decode(asked["message"])
        # A stream that its client ends may end before it is answered; a method of one message is answered at its end.
        if not asked["method"].endswith("/Sign"):
            answered.wait(SECONDS)

    try:
        answers = one.stream_stream(asked["method"])(messages(), metadata=asked["metadata"], timeout=SECONDS)
        answer = next(answers)
        answers.cancel()
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details(), "answer": ""}
    except StopIteration:
        return {"code": "OK", "details": "", "answer": ""}
    finally:
        answered.set()
    return {"code": "OK", "details": "", "answer": base64.b64encode(answer).decode()}


main(*sys.argv[1:])
