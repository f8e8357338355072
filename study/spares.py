"""Local workers that are forked from their command before it computes, and wait for orders.

Such a worker need not import again what the command has imported, and shares that memory with it.
A process that has open connections, threads or a CUDA context cannot be forked safely, so this is
done at the start, when the only threads are idle ones of OpenBLAS and of pyarrow's allocator, which
both see to forks; who comes later, to replace a worker that died, starts from nothing.
"""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO, Any

import torch
from setproctitle import setproctitle

from objectives.compiling import CACHE_VARIABLE
from study.environment import device_of
from study.errors import WorkerError
from study.request import Request
from study.settings import Settings, is_server

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_SPARES = 100  # each holds four files here; further workers start from nothing
LAST_STANDARD_FILE = 2
COMPILER = "torch._dynamo"  # which torch imports with the first optimizer
RUNS_STORE = "mlflow.store.tracking.sqlalchemy_store"  # and MLflow this with its first database


@dataclass(frozen=True)
class _Orders:
    """What a worker is told when it is needed."""

    arguments: Sequence[str]  # of `bnvit-study`
    environment: Mapping[str, str]


@dataclass
class Spare:
    """A process that can become one worker; to a crew it is what a `subprocess.Popen` is."""

    process: BaseProcess
    orders: Connection
    stderr: IO[str]
    is_hired: bool = False

    def employ(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Let it be `bnvit-study ARGUMENTS` from now on, with nothing but this environment.

        What libraries read there while they were imported stays as it was.
        """
        self.is_hired = True
        with suppress(BrokenPipeError):  # it was killed, as `poll` tells
            self.orders.send(_Orders(arguments, environment))

    def dismiss(self) -> None:
        """End it if it has no orders; if it has, the crew sees to its end."""
        if not self.is_hired:
            self.kill()
            self.wait()
            self.stderr.close()
        self.orders.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None, "it was started"
        return self.process.pid

    @property
    def returncode(self) -> int | Any:
        """None while it runs; below 0 after a signal."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired after `timeout` seconds."""
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("bnvit-study worker", timeout or 0.0)
        return int(self.returncode)

    def send_signal(self, number: int, /) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()


@contextmanager
def spares_for(requests: Sequence[Request], settings: Settings) -> Iterator[list[Spare]]:
    """As many as the requests have local workers, for as long as the context lasts.

    Who takes one, pops it. There are none where workers are not to be forked: where CUDA may have
    been asked for its devices, which no fork survives; on macOS, whose frameworks do not bear it;
    where Ray places workers, or their number is yet to be measured. To be called before anything is
    computed. Raises InputError for a request or settings that cannot be, WorkerError where the
    system allows no more processes or files.
    """
    for request in requests:
        request.check()
    settings.check()
    device_of(requests[0].device)
    number = _number(requests[0])
    if number > 0:
        _import(settings, number)
    everyone: list[Spare] = []
    try:
        _fork(number, everyone)
        yield list(everyone)
    finally:
        for spare in everyone:
            spare.dismiss()


def _number(request: Request) -> int:
    may_fork = (
        request.engine == "local" and sys.platform == "linux" and not torch.cuda.is_available()
    )
    if not may_fork or request.workers == "auto":
        return 0
    return 1 if request.workers is None else min(request.workers, MOST_SPARES)


def _import(settings: Settings, workers: int) -> None:
    """Import what this process needs as well, and what several workers do."""
    importlib.import_module("study.joining")
    if not settings.is_tracking_off:
        importlib.import_module("study.mlflow_tracker")
    if workers > 1:
        _import_compiler()
        if not is_server(settings.mlflow_uri or ""):
            importlib.import_module(RUNS_STORE)


def _import_compiler() -> None:
    """Without what else its import does: make a folder for compiled code, and note it for all."""
    given = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = given or tempfile.gettempdir()
    importlib.import_module(COMPILER)
    if given is None:
        del os.environ[CACHE_VARIABLE]


@contextmanager
def _signals_wait() -> Iterator[None]:
    """One that arrives within a fork would be lost in Python's own handlers, or found twice."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, no end of a child would be known
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork(number: int, spares: list[Spare]) -> None:
    """Add so many to `spares`."""
    try:
        with _signals_wait():
            for _ in range(number):
                spares.append(_forked(spares))
    except OSError as error:
        raise WorkerError(
            f"cannot start {number} workers ({error.strerror}); choose fewer by --workers"
        ) from error


def _forked(others: Sequence[Spare]) -> Spare:
    _take_standard_files()
    inbox, orders = multiprocessing.Pipe(duplex=False)
    readable, writable = os.pipe()
    spare_ends = (orders, os.fdopen(readable))
    process = multiprocessing.get_context("fork").Process(
        target=_stand_by, args=(inbox, writable, [*_ends_of(others), *spare_ends])
    )
    process.start()
    inbox.close()
    os.close(writable)
    return Spare(process, *spare_ends)


def _take_standard_files() -> None:
    """Where they are closed, a pipe would be taken for one of them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_FILE:
        pass
    os.close(number)


def _ends_of(spares: Sequence[Spare]) -> Iterator[Connection | IO[str]]:
    for spare in spares:
        yield from (spare.orders, spare.stderr)


def _stand_by(inbox: Connection, stderr: int, inherited: Sequence[Connection | IO[str]]) -> None:
    """Wait for orders and follow them; a `run` that has none, or is gone, closes the pipe."""
    for end in inherited:
        end.close()
    _leave_the_terminal(stderr)
    _import_compiler()
    try:
        orders: _Orders = inbox.recv()
    except EOFError:
        return
    inbox.close()
    os.environ.clear()
    os.environ.update(orders.environment)
    sys.argv = ["bnvit-study", *orders.arguments]
    setproctitle(" ".join(sys.argv))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from study.entry import main

    main()


def _leave_the_terminal(stderr: int) -> None:
    """A Ctrl-C is for the `run`, which passes it on, as it does what the worker says."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    setproctitle("bnvit-study worker")
    with open(os.devnull, "r+b", buffering=0) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    os.dup2(stderr, 2)
    os.close(stderr)
