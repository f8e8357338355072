"""What people see while a study runs: a live table on a terminal, plain lines elsewhere.

Everything comes from the store, so workers on other machines show up by themselves.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from optuna.exceptions import StorageInternalError
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from study.errors import UnknownStudyError
from study.forecast import images_left
from study.overview import Overview, TrialRow
from study.patience import Patience
from study.service import Session
from study.stop import Stop
from study.summary import others_words
from study.tables import trials_table
from study.words import counted

REFRESH_S = 1.0
BAR_WIDTH = 60  # columns
LIVE_MARGIN = 6  # lines of a terminal that the live table leaves to others
_TOLD_ELSEWHERE = (SQLAlchemyError, StorageInternalError, UnknownStudyError)


_Seen = Sequence[Overview]  # of the studies that are trained together


@contextmanager
def shown(
    sessions: Sequence[Session], console: Console, patience: Patience, quiet: bool
) -> Iterator[None]:
    """Show the progress of `sessions` for as long as the context lasts, in the background."""
    if quiet:
        yield
        return

    def look() -> _Seen:
        return [session.overview() for session in sessions]

    before = patience(look)
    clock = _Clock(before, patience.stop)
    if console.is_terminal:
        with (
            Live(console=console, refresh_per_second=2, transient=True) as live,
            _repeating(lambda: live.update(_live_view(look(), clock, console.height))),
        ):
            yield
        return
    lines = _Lines(before)
    with _repeating(lambda: lines.tell(look(), console, clock)):
        yield
    with suppress(*_TOLD_ELSEWHERE):
        lines.tell(look(), console, clock)


class _Clock:
    """Estimates the time left from the pace since it was started, unless a stop was asked for."""

    def __init__(self, seen: _Seen, stop: Stop) -> None:
        self.stop = stop
        self.began_s = time.monotonic()
        self.images_before = sum(one.images_trained for one in seen)

    def outlook(self, seen: _Seen) -> str:
        """What is to come: a stop that was asked for, else the time left."""
        if self.stop.requested:
            again = "; Ctrl-C again stops at once" if self.stop.signal == signal.SIGINT else ""
            return f"stopping{again}"
        return self._left(seen)

    def _left(self, seen: _Seen) -> str:
        """Time left in words; empty while there is nothing to go by, or nothing left."""
        trained = sum(one.images_trained for one in seen) - self.images_before
        is_done = all(len(one.ended) == len(one.counted) for one in seen)
        if trained < seen[0].identity.rungs[0] or is_done:
            return ""
        left = sum(images_left(one) for one in seen)
        seconds = (time.monotonic() - self.began_s) / trained * left
        return f"about {timedelta(seconds=round(seconds))} left"


class _Lines:
    """One log line for each rung and each end, in the order in which they are seen."""

    def __init__(self, seen: _Seen) -> None:
        self.rungs = {(one.uuid, row.number): row.rungs for one in seen for row in one.trials}
        self.ended = {(one.uuid, row.number) for one in seen for row in one.trials if row.finished}
        self.lock = threading.Lock()

    def tell(self, seen: _Seen, console: Console, clock: _Clock) -> None:
        """Print what is new in `seen`."""
        with self.lock:
            for one in seen:
                of_study = f" of {one.study}" if len(seen) > 1 else ""
                for row in one.trials:
                    for line in self._new(one, row, _count(seen, clock)):
                        _say(console, f"trial {row.number}{of_study}: {line}")

    def _new(self, seen: Overview, row: TrialRow, count: str) -> Iterator[str]:
        key = seen.uuid, row.number
        # A trial is read by several statements: its values may show up after its rungs.
        is_whole = row.val_accuracy is not None and row.lr is not None
        if row.rungs != self.rungs.get(key, ()) and is_whole:
            self.rungs[key] = row.rungs
            yield _rung_line(row, seen)
        if row.finished and key not in self.ended:
            self.ended.add(key)
            test = "" if row.test_accuracy is None else f", test accuracy {row.test_accuracy:.2%}"
            yield f"{row.outcome}{test}. {count}"


def _say(console: Console, line: str) -> None:
    console.print(f"{time.strftime('%H:%M:%S')} {line}", highlight=False, soft_wrap=True)


def _rung_line(row: TrialRow, seen: Overview) -> str:
    epochs = row.rungs[-1] / seen.identity.train_images
    seed = "" if row.seed is None else f", seed {row.seed}"
    return (
        f"{row.val_accuracy:.2%} after {counted(epochs, 'epoch')} "
        f"(lr {row.lr:.2e}, batch size {row.batch_size}{others_words(row)}{seed})"
    )


def _count(seen: _Seen, clock: _Clock) -> str:
    ended, total = _ended_and_total(seen)
    parts = [f"{ended} of {total} trials ended", clock.outlook(seen)]
    return ", ".join(part for part in parts if part)


def _ended_and_total(seen: _Seen) -> tuple[int, int]:
    return sum(len(one.ended) for one in seen), sum(len(one.counted) for one in seen)


def _live_view(seen: _Seen, clock: _Clock, height: int) -> Group:
    """As many of the latest trials as fit; those that wait are only counted."""
    ended, total = _ended_and_total(seen)
    head = Table.grid()
    names = ", ".join(one.study for one in seen)
    head.add_row(Text.assemble((names, "bold"), "  ", _count(seen, clock)))
    head.add_row(ProgressBar(total, ended, width=BAR_WIDTH))
    lines = max(height // len(seen) - LIVE_MARGIN, 1)
    return Group(head, *(trials_table(one, lines) for one in seen))


@contextmanager
def _repeating(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` every REFRESH_S in a thread for as long as the context lasts."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            # A store that is away, or a study that is gone, is for who looks after it to tell.
            with suppress(*_TOLD_ELSEWHERE):
                action()
            stop.wait(REFRESH_S)

    thread = threading.Thread(target=repeat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
