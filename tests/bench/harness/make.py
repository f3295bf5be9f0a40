"""From the name of a peer to its configuration and commands."""

from pathlib import Path

from harness import chains, leno, peers


def make(name: str, chain: bool, tools: Path, folder: Path) -> peers.Peer:
    """The peer of that name, alone or as a chain of two, with its configuration written to `folder`."""
    if name == "leno":
        return leno.two(folder) if chain else leno.one(folder)
    return (chains if chain else peers).make(name, tools, folder)
