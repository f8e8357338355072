"""What the doctor looks at in the store that all nodes share."""

import statistics
import time
from collections.abc import Callable, Iterator

import optuna
from sqlalchemy import func, select, text

from models.errors import few
from study.finding import Finding
from study.schema import VERSION, versions
from study.storage import Store
from study.words import counted
from study.worker_status import WorkerStatus, read_workers
from study.workplace import MOST_SKEW_S, clock_ahead_s

ROUND_TRIPS = 5
NEWS_S = 600  # for which a worker that died makes a bad finding; then its trial has others


def check_store(store: Store) -> Iterator[Finding]:
    """Where it is, what it is, and how far away."""
    with store.engine.connect() as connection:
        version = connection.scalar(text("SHOW server_version"))
        took_ms = statistics.median(
            _milliseconds(lambda: connection.execute(select(1))) for _ in range(ROUND_TRIPS)
        )
    message = f"{store.label}: PostgreSQL {version}, round trip {took_ms:.1f} ms"
    yield Finding("store", True, message)


def check_schema(store: Store) -> Iterator[Finding]:
    """Whether Optuna's tables and ours are those of the code that runs."""
    current, head = store.storage.get_current_version(), store.storage.get_head_version()
    message = f"Optuna's tables: {current}"
    if current != head:
        message += f", but Optuna {optuna.__version__} has {head}"
    advice = "use the same Optuna on all nodes, then: optuna storage upgrade"
    yield Finding("schema", current == head, message, advice)
    with store.engine.connect() as connection:
        ours = connection.scalar(select(func.max(versions.c.version)))
    message = f"bnvit-study's tables: version {ours}"
    if ours != VERSION:
        message += f", but this one has version {VERSION}"
    yield Finding("schema", ours == VERSION, message, "use the same bnvit-study on all nodes")


def check_clock(store: Store) -> Iterator[Finding]:
    """Whether this node's clock and the workers' go as the store's does."""
    yield _clock("this node", clock_ahead_s(store))
    for worker in read_workers(store):
        if abs(worker.clock_ahead_s) > MOST_SKEW_S:
            yield _clock(f"worker {worker.name}", worker.clock_ahead_s)


def check_workers(store: Store) -> Iterator[Finding]:
    """Whether all workers live and run the same packages."""
    workers = read_workers(store)
    live = [worker for worker in workers if not worker.is_silent]
    yield Finding(
        "workers", True, f"{counted(len(live), 'worker')} at work" if live else "none at work"
    )
    for worker in workers:
        if worker.is_silent:
            yield _silent(worker)
    packages = sorted({package for worker in live for package in worker.versions})
    for package in packages:
        holders: dict[str, list[str]] = {}
        for worker in live:
            holders.setdefault(worker.versions.get(package, "none"), []).append(worker.name)
        if len(holders) > 1:
            told = "; ".join(f"{version} on {few(names)}" for version, names in holders.items())
            yield Finding("workers", False, f"{package} {told}", "install the same on all nodes")


def _clock(whose: str, ahead_s: float) -> Finding:
    direction = "ahead of" if ahead_s > 0 else "behind"
    return Finding(
        "clock",
        abs(ahead_s) <= MOST_SKEW_S,
        f"{whose} is {abs(ahead_s):.1f} s {direction} the store",
        "set that clock (NTP): leases go by the store's, but times of events look odd",
    )


def _silent(worker: WorkerStatus) -> Finding:
    """A worker that has left without a word: bad news for as long as it is news."""
    return Finding(
        "workers",
        worker.silent_s > NEWS_S,
        f"{worker.name} on {worker.node} {worker.state}, without having left",
        "if it died, find out why; others take over its trial",
    )


def _milliseconds(action: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - began_s)
