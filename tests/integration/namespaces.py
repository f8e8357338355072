"""A network namespace as another node: its processes reach this machine by one address alone."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """Another node, as far as the network is concerned."""

    prefix: tuple[str, ...]  # of a command that is to run there
    host: str  # this machine's address, seen from there


@contextmanager
def node() -> Iterator[Node]:
    """A node of its own where this user may make one, else this machine by its loopback."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield Node((), "127.0.0.1")
        return
    number = os.getpid() % 16_000
    name, here, there = f"bnvit-{number}", f"bnv{number}a", f"bnv{number}b"
    network = f"10.213.{number // 64}.{number % 64 * 4}"
    stem, _, last = network.rpartition(".")
    host, guest = f"{stem}.{int(last) + 1}", f"{stem}.{int(last) + 2}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("addr", "add", f"{host}/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", name, "addr", "add", f"{guest}/30", "dev", there)
        _ip("-n", name, "link", "set", there, "up")
        yield Node(("ip", "netns", "exec", name), host)
    finally:
        _ip("netns", "del", name)  # and with it both ends of its link


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
