"""A worker's sign of life: its row in the table of workers, and the lease of the trial it holds."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from study import leases
from study.leases import Claim
from study.schema import workers
from study.storage import Store

BEATS_PER_LEASE = 6
LEAVE_S = 1.0  # granted to a beat under way

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """Who a worker is, as others are told."""

    name: str
    node: str
    pid: int
    device: str
    versions: dict[str, str]
    clock_ahead_s: float  # of the server's clock


@dataclass(frozen=True)
class Progress:
    """How far a trial is, in images."""

    seen: int
    saved: int  # in its last checkpoint


@dataclass
class _Hold:
    claim: Claim
    progress: Callable[[], Progress]
    is_lost: bool = False


class Beat:
    """Tells the store every few seconds that this worker lives, in a thread of its own.

    A beat that fails is only noted: the next may pass. `is_reachable`, `away_s` and `is_settled`
    say how the connection fares, which saves others from finding it out the slow way.
    """

    def __init__(self, store: Store, worker: Worker) -> None:
        self.store = store
        self.worker = worker
        self._interval_s = store.lease_s / BEATS_PER_LEASE
        self._away_since_s: float | None = None  # None: it is reachable
        self._away_until_s = 0.0
        self._passed_at_s = time.monotonic()
        self._hold: _Hold | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()  # around a beat, so that a hold does not end in its middle
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)

    def __enter__(self) -> Self:
        self._sign()  # raises where the store refuses
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=LEAVE_S)  # it may be waiting for a silent server
        self._sign_off()

    @property
    def is_reachable(self) -> bool:
        """Whether the store was there when it was last spoken to."""
        return self._away_since_s is None

    @property
    def away_s(self) -> float:
        """For how long the store has been away; 0 while it is reachable."""
        since_s = self._away_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    @property
    def silent_s(self) -> float:
        """For how long the store has not taken a sign of life, since this began at most."""
        return time.monotonic() - self._passed_at_s

    @property
    def is_settled(self) -> bool:
        """Whether the store has been reachable for half a lease.

        Others who were cut off at the same time have beaten by then.
        """
        return self.is_reachable and time.monotonic() - self._away_until_s > self.store.lease_s / 2

    @property
    def has_lost(self) -> bool:
        """Whether another worker has taken over the trial that is held."""
        return self._hold is not None and self._hold.is_lost

    @contextmanager
    def holding(self, claim: Claim, progress: Callable[[], Progress]) -> Iterator[None]:
        """Extend the lease of `claim` for as long as this lasts."""
        self._hold = _Hold(claim, progress)
        try:
            yield
        finally:
            is_mine = self._lock.acquire(timeout=LEAVE_S)
            self._hold = None
            if is_mine:
                self._lock.release()

    def note_outage(self) -> None:
        """Somebody has found the store away; only a beat that begins later says otherwise."""
        if self._away_since_s is None:
            self._away_since_s = time.monotonic()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._beat()
            if self._stop.is_set():  # it may have signed on again meanwhile
                self._sign_off()

    def _beat(self) -> None:
        asked_at_s = time.monotonic()
        try:
            self._sign()
            with self._lock:
                hold = self._hold
                if hold is not None:
                    told = hold.progress()
                    hold.is_lost = not leases.extend(self.store, hold.claim, told.seen, told.saved)
        except SQLAlchemyError as error:
            log.debug("no sign of life: %s", error)
            self.note_outage()
            return
        self._passed_at_s = asked_at_s
        away_since_s = self._away_since_s
        if away_since_s is not None and away_since_s < asked_at_s:
            self._away_until_s = time.monotonic()
            self._away_since_s = None

    def _sign(self) -> None:
        who = self.worker
        row = insert(workers).values(
            name=who.name,
            node=who.node,
            pid=who.pid,
            device=who.device,
            versions=who.versions,
            clock_ahead_s=who.clock_ahead_s,
        )
        again = row.on_conflict_do_update(
            index_elements=[workers.c.name], set_={"seen_at": func.now()}
        )
        with self.store.engine.begin() as connection:
            connection.execute(again)

    def _sign_off(self) -> None:
        if not self.is_reachable:
            return  # others see that it is silent
        with suppress(SQLAlchemyError), self.store.engine.begin() as connection:
            connection.execute(workers.delete().where(workers.c.name == self.worker.name))
