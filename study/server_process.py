"""A web server as a child process: started, asked whether it answers, stopped with its children."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from study.errors import UiError

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
POLL_S = 0.1
ASK_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Address:
    """Where a server answers over HTTP: a port of a host, or a Unix socket."""

    host: str = "127.0.0.1"
    port: int = 0
    socket: Path | None = None

    def __str__(self) -> str:
        return str(self.socket) if self.socket is not None else f"http://{self.host}:{self.port}/"

    def answers(self, path: str = "/") -> bool:
        """Whether something there answers to a GET of `path`, whatever it says."""
        connection = _Connection(self)
        try:
            connection.request("GET", path)
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True


class _Connection(http.client.HTTPConnection):
    """An HTTP connection that may lead to a Unix socket."""

    def __init__(self, address: Address) -> None:
        super().__init__(address.host, address.port, timeout=ASK_TIMEOUT_S)
        self._path = address.socket

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ASK_TIMEOUT_S)
        self.sock.connect(str(self._path))


@dataclass
class ServerProcess:
    """A server in a process group of its own, so that all its children stop with it."""

    name: str  # for people
    command: Sequence[str]
    environment: Mapping[str, str]  # beside this process' own; secrets go here, not in `command`
    address: Address
    log: Path
    health: str = "/"  # a page that it answers without a login
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Start it; what it says goes to its log, which begins anew."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.address.socket is not None:
            self.address.socket.unlink(missing_ok=True)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended, though nobody stopped it."""
        return self.process is not None and self.process.poll() is not None

    def wait(self) -> None:
        """Wait until the server answers; raises UiError if it ends or takes too long."""
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            self.check()
            if self._listens() and self.address.answers(self.health):
                return
            time.sleep(POLL_S)
        raise UiError(f"{self.address} did not answer within {START_TIMEOUT_S} s (log: {self.log})")

    def check(self) -> None:
        """Raise UiError if the server has ended."""
        if self.has_ended:
            raise UiError(f"the server of {self.address} has ended: {self._last_words()}")

    def stop(self) -> None:
        """Stop it and its children, in order if it obeys in time."""
        if self.process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT_S)
        self.process.wait()
        self.process = None

    def _listens(self) -> bool:
        """Whether one of this server's processes, and no other program, has its port."""
        if self.address.socket is not None:
            return self.address.socket.exists()
        assert self.process is not None, "it was not started"
        try:
            main = psutil.Process(self.process.pid)
            return any(
                connection.status == psutil.CONN_LISTEN
                and connection.laddr.port == self.address.port
                for process in (main, *main.children(recursive=True))
                for connection in process.net_connections("tcp")
            )
        except psutil.NoSuchProcess:
            return False  # a child has just ended

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (log: {self.log})"
