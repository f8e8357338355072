"""Local workers that are forked from their `run` before it opens anything, and wait for orders.

Such a worker need not import again what the `run` has imported, and shares that memory with it. A
process that has connections, threads or a CUDA context cannot be forked safely, so this is done at
the start; who comes later, to replace a worker that died, starts from nothing.
"""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO, Any

import torch
from setproctitle import setproctitle

from study.request import Request
from study.settings import Settings, is_server

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

    def employ(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Let it be `bnvit-study ARGUMENTS` from now on, with nothing but this environment."""
        with suppress(BrokenPipeError):  # it was killed, as `poll` tells
            self.orders.send(_Orders(arguments, environment))

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
def spares_for(request: Request, settings: Settings) -> Iterator[list[Spare]]:
    """As many as `request` has local workers, for as long as the context lasts.

    Who takes one, pops it. There are none where workers are not to be forked: where CUDA may have
    been asked for its devices, which no fork survives; on macOS, whose frameworks do not bear it;
    where Ray places workers, or their number is yet to be measured. To be called before anything is
    computed or opened, and before any thread is started. Raises InputError for a request that
    cannot be.
    """
    request.check()
    number = _number(request)
    if number > 0:
        for name in _modules(settings, number):
            importlib.import_module(name)
    all_of_them: list[Spare] = []
    spares: list[Spare] = []
    try:
        for _ in range(number):
            all_of_them.append(_forked(all_of_them))
        spares += all_of_them
        yield spares
    finally:
        for spare in spares:
            spare.stderr.close()
        for spare in all_of_them:
            spare.orders.close()


def _number(request: Request) -> int:
    may_fork = (
        request.engine == "local" and sys.platform == "linux" and not torch.cuda.is_available()
    )
    if not may_fork or request.workers == "auto":
        return 0
    return 1 if request.workers is None else request.workers


def _modules(settings: Settings, workers: int) -> Iterator[str]:
    """What is to be imported here: what this process needs as well, and what several of them do."""
    yield "study.joining"
    if not settings.is_tracking_off:
        yield "study.mlflow_tracker"
    if workers > 1:
        yield COMPILER
        if not is_server(settings.mlflow_uri or ""):
            yield RUNS_STORE


def _forked(others: Sequence[Spare]) -> Spare:
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


def _ends_of(spares: Sequence[Spare]) -> Iterator[Connection | IO[str]]:
    for spare in spares:
        yield from (spare.orders, spare.stderr)


def _stand_by(inbox: Connection, stderr: int, inherited: Sequence[Connection | IO[str]]) -> None:
    """Wait for orders and follow them; a `run` that has none, or is gone, closes the pipe."""
    for end in inherited:
        end.close()
    _leave_the_terminal(stderr)
    importlib.import_module(COMPILER)
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
    setproctitle("bnvit-study worker")
    with open(os.devnull, "r+b", buffering=0) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    os.dup2(stderr, 2)
    os.close(stderr)
