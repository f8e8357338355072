"""Copies of checkpoints where every node reaches them, made by a thread of their own."""

import logging
import random
import threading
import time
from contextlib import suppress
from pathlib import Path

from study.checkpoint_files import surplus
from study.place import Place, PlaceError

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
CLOSE_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)
_jitter = random.Random()  # not Python's shared one, whose state may be a seed's


class Mirror:
    """Brings a place up to date: for each trial the newest file that was put, or its deletion.

    What was not yet copied when a newer file was put is never copied.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._wanted: dict[str, Path | None] = {}  # by trial; None: to be deleted
        self._changed = threading.Condition()  # guards all that follows, and `_wanted`
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._hurried = False
        self._closed = False

    def put(self, trial: str, path: Path) -> None:
        """Have `path` copied; returns at once."""
        self._want(trial, path)

    def delete(self, trial: str) -> None:
        """Have a trial's copies deleted."""
        self._want(trial, None)

    def delete_all(self) -> None:
        """Have all trials' copies deleted."""
        with self._changed:
            self._wanted.clear()
        self._want(_ALL, None)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is done, trying once a second; returns whether it is."""
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while self._wanted and (left_s := end_s - time.monotonic()) > 0:
                self._hurried = True
                self._changed.notify_all()
                self._changed.wait(min(left_s, FIRST_RETRY_S))
            return not self._wanted

    def close(self) -> None:
        """Stop once what is being copied is there; waits a second at most for that."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _want(self, trial: str, path: Path | None) -> None:
        with self._changed:
            self._wanted[trial] = path
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._wanted)
                if self._closed:
                    return
                trial, path = next(iter(self._wanted.items()))
            try:
                self._carry_out(trial, path)
            except (PlaceError, OSError) as error:
                if path is not None and not path.exists():  # deleted while it was copied
                    self._done(trial, path)
                else:
                    self._failed(trial, path, error)
            else:
                self._done(trial, path)

    def _carry_out(self, trial: str, path: Path | None) -> None:
        if trial == _ALL:
            self._place.delete_all()
        elif path is None:
            self._place.delete(trial, None)
        elif path.exists():  # else newer ones, or the end of the trial, have removed it
            self._place.put(trial, path)
            with suppress(PlaceError):  # the next one will do
                for name in surplus(sorted(self._place.names(trial), reverse=True), path.name):
                    self._place.delete(trial, name)

    def _done(self, trial: str, path: Path | None) -> None:
        if self._failures:
            log.info("checkpoints are copied for other nodes again")
        with self._changed:
            self._failures = 0
            if trial in self._wanted and self._wanted[trial] == path:
                del self._wanted[trial]
            self._changed.notify_all()

    def _failed(self, trial: str, path: Path | None, error: Exception) -> None:
        if self._failures == 0 and path is None:
            log.warning("copies of checkpoints cannot be deleted for now: %s", error)
        elif self._failures == 0:
            log.warning("checkpoints stay on this machine for now, and training goes on: %s", error)
        with self._changed:
            if trial in self._wanted:
                self._wanted[trial] = self._wanted.pop(trial)  # the others get their turn
            longest_s = min(FIRST_RETRY_S * 2 ** min(self._failures, 10), LAST_RETRY_S)
            self._failures += 1
            self._hurried = False
            self._changed.wait_for(
                lambda: self._closed or self._hurried, _jitter.uniform(longest_s / 2, longest_s)
            )


_ALL = ""  # as a trial
