"""Workers as forked processes, what they leave behind, and the server that they share."""

import multiprocessing
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from store_meter import OPERATIONS, Account, Meter, Span

from study.embedded import EmbeddedPostgres
from study.settings import Settings

READY_TIMEOUT_S = 120.0  # for all workers to have connected

Body = Callable[[Meter, Callable[[], None]], None]

_fork = multiprocessing.get_context("fork")  # they share what has been imported


@dataclass(frozen=True)
class Server:
    """The Postgres under test. `pid` is its first process; None: it is not ours."""

    settings: Settings
    pid: int | None

    def cpu_s(self) -> float:
        """CPU time of all its processes so far, those that have ended included."""
        if self.pid is None:
            return 0.0
        first = psutil.Process(self.pid)
        total = sum(first.cpu_times()[:4])  # its own and that of children that have ended
        for child in first.children():
            with suppress(psutil.NoSuchProcess):
                total += sum(child.cpu_times()[:2])
        return float(total)


@dataclass(frozen=True)
class Work:
    """What workers have done, from when all were ready; CPU times of all cores together."""

    accounts: tuple[Account, ...]
    lasted_s: float  # until the last had left
    postgres_cpu_s: float
    machine_cpu_s: float  # whoever used it

    @property
    def spans(self) -> list[Span]:
        """All workers' operations."""
        return [span for account in self.accounts for span in account.spans]

    @property
    def wall_s(self) -> float:
        """From the first claim to the last trial's end."""
        spans = [span for span in self.spans if span.operation in OPERATIONS]
        ends = [span.began_s + span.wall_s for span in spans]
        return max(ends, default=0.0) - min((span.began_s for span in spans), default=0.0)

    @property
    def workers_cpu_s(self) -> float:
        """CPU time of the workers."""
        return sum(account.cpu_s for account in self.accounts)

    @property
    def errors(self) -> list[str]:
        """The last line of each worker's error."""
        return [a.error.strip().splitlines()[-1] for a in self.accounts if a.error]


@contextmanager
def server(storage: str | None) -> Iterator[Server]:
    """The server at `storage`, or one of our own for as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="bnvit-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account must be able to enter
        if storage is not None:
            yield Server(_settings(folder, storage), None)
            return
        with EmbeddedPostgres(folder / "postgres") as postgres:
            pid = int((postgres.data / "postmaster.pid").read_text().split()[0])
            yield Server(_settings(folder, postgres.url("optuna")), pid)


def run_workers(count: int, body: Body, host: Server) -> Work:
    """Run `body` in `count` processes at once; it is given what lets it wait for the others.

    Call it without open connections and threads, as the processes are forked.
    """
    ready = _fork.Barrier(count + 1)
    with tempfile.TemporaryDirectory(prefix="bnvit-bench-") as folder:
        paths = [Path(folder) / f"{index}.json" for index in range(count)]
        processes = [_fork.Process(target=_run, args=(body, ready, path)) for path in paths]
        for process in processes:
            process.start()
        try:
            _wait(ready)
            began = time.perf_counter(), host.cpu_s(), _busy_s()
            for process in processes:
                process.join()
        finally:
            for process in processes:
                process.kill()
        ended = time.perf_counter(), host.cpu_s(), _busy_s()
        accounts = tuple(Account.read(path) for path in paths)
    return Work(accounts, *(end - begin for begin, end in zip(began, ended, strict=True)))


def _busy_s() -> float:
    """CPU time that all processes of the machine have used since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _run(body: Body, ready: threading.Barrier, path: Path) -> None:
    meter = Meter()
    begun_s = 0.0
    error = ""

    def wait_for_all() -> None:
        nonlocal begun_s
        _wait(ready)
        begun_s = time.process_time()

    try:
        body(meter, wait_for_all)
    except Exception:
        error = traceback.format_exc()
        ready.abort()  # nobody is to wait for this one
    Account(meter.spans, time.process_time() - begun_s, error).write(path)


def _wait(ready: threading.Barrier) -> None:
    with suppress(threading.BrokenBarrierError):  # one that could not start says so itself
        ready.wait(READY_TIMEOUT_S)


def _settings(folder: Path, storage: str) -> Settings:
    return Settings(data_dir=folder, storage_url=storage, mlflow_uri="none", checkpoints="local")
