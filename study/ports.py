"""Ports of this machine: whether one is free, and who has it."""

import socket

import psutil

LOOPBACK = "127.0.0.1"


def why_taken(port: int, host: str = LOOPBACK) -> str | None:
    """Why nothing can listen on a port, with the program that has it where that can be seen.

    None: it is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return holder_of(port) or str(error.strerror)
    return None


def holder_of(port: int) -> str | None:
    """Which program listens on a port, as 'nginx (process 123) has it'; None: it cannot be seen."""
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr.port == port
                and connection.pid
            ):
                name = psutil.Process(connection.pid).name().partition(" -")[0]  # of a title
                return f"{name} (process {connection.pid}) has it"
    except psutil.Error:  # macOS shows them to root only
        pass
    return None
