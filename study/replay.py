"""Replaying spools: in order, as often as it takes, and never in training's way."""

import hashlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from sqlalchemy import URL, make_url

from models.errors import first_line
from study.applier import Applier, NotYetError
from study.connections import reason_of
from study.errors import LockedError
from study.settings import TRACKING_OFF
from study.settling import OUTAGES, Fate, connected, settle
from study.spool import Spool, left_behind
from study.spool_line import Line
from study.storage import Store
from study.tracking import TrackingOutageError
from study.words import counted

FIRST_WAIT_S = 0.5  # after an error; doubled with each that follows
LONGEST_WAIT_S = 15.0
NOT_YET_S = 0.2
CLOSE_S = 1.0  # granted to a request that is under way
FIRST_SYNC_S = 60.0  # between looks at what dead workers left; doubled while MLflow is away
LONGEST_SYNC_S = 900.0

log = logging.getLogger(__name__)


class Replayer:
    """Replays a worker's spool in a thread of its own until it is closed.

    While there is nothing of its own, it passes on what dead workers of this node left behind.
    """

    def __init__(
        self, spool: Spool, store: Store, uri: str, is_best: Callable[[Line], bool]
    ) -> None:
        self._spool = spool
        self._connect = partial(connected, store, uri, is_best, waits=True)
        self._sync = partial(sync, spool.folder, store, uri, is_best, self._has_work)
        self._sync_at_s = 0.0
        self._sync_wait_s = FIRST_SYNC_S
        self._applier: Applier | None = None
        self._closed = False
        self._flushers = 0
        self._wait_s = FIRST_WAIT_S
        self._away_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin; nothing is asked of MLflow before there is a line to be replayed."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Lines that have not been replayed yet."""
        return self._spool.waiting

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is replayed; False if it was not within `timeout_s`."""
        changed = self._spool.changed
        with changed:
            self._flushers += 1
            changed.notify_all()  # a long wait after an error ends here
            try:
                changed.wait_for(lambda: self.waiting == 0 or self._closed, timeout_s)
            finally:
                self._flushers -= 1
            return self.waiting == 0

    def close(self) -> None:
        """Stop, leaving a request that hangs to itself; what waits stays in the spool."""
        with self._spool.changed:
            self._closed = True
            self._spool.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._closed:
            self._step()
        if self._applier is not None:
            self._applier.disconnect()

    def _step(self) -> None:
        try:
            entry = self._spool.head()
            if entry is None:
                self._sync_now_and_then()
                self._pause(LONGEST_WAIT_S, self._has_work)
                return
            self._applier = self._applier or self._connect()
            settle(self._spool, entry, self._applier)
        except NotYetError:
            self._pause(NOT_YET_S)
        except OUTAGES as error:
            self._ride_out(error)
        else:
            self._note_success()

    def _has_work(self) -> bool:
        return self.waiting > 0 or self._closed

    def _sync_now_and_then(self) -> None:
        if time.monotonic() < self._sync_at_s:
            return
        report = self._sync()
        if report.replayed:
            log.info("%s of workers that died here passed on", counted(report.replayed, "record"))
        longer_s = min(2 * self._sync_wait_s, LONGEST_SYNC_S)
        self._sync_wait_s = longer_s if report.left else FIRST_SYNC_S
        self._sync_at_s = time.monotonic() + self._sync_wait_s

    def _ride_out(self, error: Exception) -> None:
        if self._closed:
            return
        if self._away_since_s is None:
            self._away_since_s = time.monotonic()
            log.warning(
                "%s; training goes on, what it tells MLflow waits in %s",
                _told(error),
                self._spool.path,
            )
        flushers = self._flushers
        wait_s = FIRST_WAIT_S if flushers else self._wait_s
        self._pause(wait_s * random.uniform(0.5, 1.0), lambda: self._flushers > flushers)
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)

    def _note_success(self) -> None:
        if self._away_since_s is not None:
            away_s = time.monotonic() - self._away_since_s
            log.info("records pass to MLflow again after %.0f s", away_s)
        self._away_since_s = None
        self._wait_s = FIRST_WAIT_S

    def _pause(self, seconds: float, wakes: Callable[[], bool] = lambda: False) -> None:
        with self._spool.changed:
            self._spool.changed.wait_for(lambda: self._closed or wakes(), seconds)


def spool_folder(root: Path, store: Store, uri: str) -> Path:
    """Where below `root` the spools for one store and one MLflow lie.

    Their lines carry ids that both have given out: elsewhere these mean something else.
    """
    told = f"{store.uuid} {_without_user(uri)}"
    return root / hashlib.blake2b(told.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class SyncReport:
    """What became of the lines in spools that were left behind."""

    replayed: int
    outdated: int  # dropped: others have told more of these trials, or they are no more
    left: int  # MLflow or the store is away: to be replayed another time
    rejected: int  # set aside
    files: int  # spools that had lines


def sync(
    folder: Path,
    store: Store,
    uri: str,
    is_best: Callable[[Line], bool],
    is_over: Callable[[], bool] = lambda: False,
) -> SyncReport:
    """Replay what dead workers left in `folder`, up to the first outage or until `is_over`."""
    fates: Counter[Fate] = Counter()
    left = files = 0
    applier = None
    is_away = uri == TRACKING_OFF
    for path in left_behind(folder):
        spool = None if is_over() else Spool.take_over(path)
        if spool is None:
            continue  # another sync was faster
        with spool:
            files += 1
            try:
                while not (is_away or is_over()) and (entry := spool.head()) is not None:
                    applier = applier or connected(store, uri, is_best, waits=False)
                    fates[settle(spool, entry, applier)] += 1
            except OUTAGES as error:
                is_away = True
                log.warning("%s; what is left can be replayed later", _told(error))
            left += spool.waiting
    if applier is not None:
        applier.disconnect()
    return SyncReport(fates[Fate.REPLAYED], fates[Fate.OUTDATED], left, fates[Fate.REJECTED], files)


def _told(error: Exception) -> str:
    """What is away, and why: MLflow says so itself."""
    if isinstance(error, TrackingOutageError | LockedError):
        return first_line(str(error))
    return f"records cannot be passed on at present ({reason_of(error)})"


def _without_user(place: str) -> str:
    url = make_url(place)
    return URL.create(url.get_backend_name(), None, None, *url[3:]).render_as_string()
