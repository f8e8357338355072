"""A Ray cluster as a `run` sees it: its nodes, and the processes that Ray runs there for it."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from study.errors import ClusterError

CLOSE_TIMEOUT_S = 30.0  # for the workers that are left, and a Ray of our own, to end

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterNode:
    """A node of the cluster that is alive."""

    address: str
    hostname: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class View:
    """A cluster as it was when this process connected."""

    nodes: list[ClusterNode]
    here: ClusterNode  # the node of this process
    free_cpus: float
    free_gpus: float
    is_ours: bool  # started for this run, and ends with it

    @property
    def machines(self) -> int:
        """How many there are, by address and host name: in tests a machine has several nodes."""
        return len({(node.address, node.hostname) for node in (*self.nodes, self.here)})


@dataclass(frozen=True)
class Order:
    """A worker to be started."""

    arguments: list[str]  # of `bnvit-study worker`
    environment: dict[str, str]
    home_environment: dict[str, str]  # on the node of the `run` as well
    gpus: float
    is_bound: bool  # to this machine


@dataclass(eq=False)
class RemoteProcess:
    """A worker's process on some node, with what a crew asks of a `subprocess.Popen`."""

    key: int
    cluster: "RayCluster"
    node: str | None = None  # its address; None: it has none yet
    loss: str | None = None  # why Ray has it no more: its node is gone, or it died
    returncode: int | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def is_waiting(self) -> bool:
        """Whether there has been no room for it."""
        return self.node is None and self.returncode is None

    def poll(self) -> int | None:
        """Its exit code; None while it runs or waits for room."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired after `timeout` seconds."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal; one that waits for room waits no longer."""
        self.cluster.ask(key=self.key, number=int(number))

    def kill(self) -> None:
        """Take its room away and reckon with it no more."""
        self.send_signal(signal.SIGKILL)
        self.end(-signal.SIGKILL)

    def end(self, code: int, loss: str | None = None) -> None:
        """Note that it has ended."""
        if not self._ended.is_set():
            self.returncode, self.loss = int(code), loss
            self._ended.set()


class RayCluster:
    """A connection to Ray, by way of a process of its own (`ray_driver`) that starts at once."""

    def __init__(self, address: str | None) -> None:
        environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns that it will be so
        }
        self._driver = subprocess.Popen(
            [sys.executable, "-P", "-m", "study.ray_driver"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if log.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a Ctrl-C is for `run`
        )
        self._keys = count()
        self._processes: dict[int, RemoteProcess] = {}
        self._lock = threading.Lock()
        try:
            self.view = self._connect(address)
        except BaseException:
            self._driver.kill()
            self._driver.communicate()
            raise
        threading.Thread(target=self._listen, daemon=True).start()

    def _connect(self, address: str | None) -> View:
        self.ask(address=address)
        assert self._driver.stdout is not None
        told = json.loads(self._driver.stdout.readline() or '{"error": "Ray ended at once"}')
        if "error" in told:
            raise ClusterError(told["error"])
        nodes = [ClusterNode(**node) for node in told.pop("nodes")]
        return View(nodes, ClusterNode(**told.pop("here")), **told)

    def start(self, order: Order) -> RemoteProcess:
        """Have a worker started where there is room for it, or once there is.

        Raises ClusterError where the connection is lost.
        """
        process = RemoteProcess(next(self._keys), self)
        with self._lock:
            if self._driver.poll() is not None:
                raise ClusterError(
                    "the connection to Ray is lost, its head may have ended; run the same command "
                    "again once it is back"
                )
            self._processes[process.key] = process
        asked = {
            "arguments": order.arguments,
            "environment": order.environment,
            "gpus": order.gpus,
            "node": self.view.here.address if order.is_bound else None,
            "home": {
                "address": self.view.here.address,
                "hostname": self.view.here.hostname,
                "folder": os.getcwd(),  # noqa: PTH109
                "environment": order.home_environment,
            },
        }
        self.ask(key=process.key, start=asked)
        return process

    def ask(self, **what: Any) -> None:
        """Tell the process that talks to Ray; where that has ended, `_listen` says so."""
        assert self._driver.stdin is not None
        with self._lock, suppress(BrokenPipeError):
            print(json.dumps(what), file=self._driver.stdin, flush=True)

    def close(self) -> None:
        """Disconnect; workers that are left save their trials, a Ray of our own ends."""
        assert self._driver.stdin is not None
        with suppress(BrokenPipeError):
            self._driver.stdin.close()
        try:
            self._driver.wait(CLOSE_TIMEOUT_S)
        finally:
            self._driver.kill()
            self._driver.wait()

    def _listen(self) -> None:
        assert self._driver.stdout is not None
        with self._driver.stdout as reports:
            for line in reports:
                told = json.loads(line)
                self._note(self._processes[told.pop("key")], **told)
        with self._lock:
            self._driver.wait()
            left = list(self._processes.values())
        for process in left:
            process.end(-signal.SIGKILL, "its driver has ended")

    def _note(
        self,
        process: RemoteProcess,
        placed: str | None = None,
        line: str | None = None,
        code: int | None = None,
        lost: str | None = None,
    ) -> None:
        if placed is not None:
            process.node = placed
        if line is not None:
            print(line, end="", file=sys.stderr, flush=True)
        if code is not None:
            process.end(code)
        if lost is not None:
            process.end(-signal.SIGKILL, lost)
        if code is not None or lost is not None:
            del self._processes[process.key]


@contextmanager
def connected(address: str | None) -> Iterator[RayCluster]:
    """The cluster at `address`, or that of RAY_ADDRESS, or one that runs here, or a new one."""
    cluster = RayCluster(address)
    try:
        yield cluster
    finally:
        cluster.close()
