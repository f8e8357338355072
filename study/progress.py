"""What people see while a study runs: a live table on a terminal, plain lines elsewhere.

Everything comes from the store, so workers on other machines show up by themselves.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
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
from study.tables import trials_table
from study.words import counted

REFRESH_S = 1.0
BAR_WIDTH = 60  # columns
LIVE_MARGIN = 6  # lines of a terminal that the live table leaves to others
_TOLD_ELSEWHERE = (SQLAlchemyError, StorageInternalError, UnknownStudyError)


@contextmanager
def shown(session: Session, console: Console, patience: Patience, quiet: bool) -> Iterator[None]:
    """Show the progress of `session` for as long as the context lasts, in the background."""
    if quiet:
        yield
        return
    before = patience(session.overview)
    clock = _Clock(before, patience.stop)
    if console.is_terminal:
        with (
            Live(console=console, refresh_per_second=2, transient=True) as live,
            _repeating(lambda: live.update(_live_view(session.overview(), clock, console.height))),
        ):
            yield
        return
    lines = _Lines(before)
    with _repeating(lambda: lines.tell(session.overview(), console, clock)):
        yield
    with suppress(*_TOLD_ELSEWHERE):
        lines.tell(session.overview(), console, clock)


class _Clock:
    """Estimates the time left from the pace since it was started, unless a stop was asked for."""

    def __init__(self, seen: Overview, stop: Stop) -> None:
        self.stop = stop
        self.began_s = time.monotonic()
        self.images_before = seen.images_trained

    def outlook(self, seen: Overview) -> str:
        """What is to come: a stop that was asked for, else the time left."""
        if self.stop.requested:
            again = "; Ctrl-C again stops at once" if self.stop.signal == signal.SIGINT else ""
            return f"stopping{again}"
        return self._left(seen)

    def _left(self, seen: Overview) -> str:
        """Time left in words; empty while there is nothing to go by, or nothing left."""
        trained = seen.images_trained - self.images_before
        if trained < seen.identity.rungs[0] or len(seen.ended) == len(seen.counted):
            return ""
        seconds = (time.monotonic() - self.began_s) / trained * images_left(seen)
        return f"about {timedelta(seconds=round(seconds))} left"


class _Lines:
    """One log line for each rung and each end, in the order in which they are seen."""

    def __init__(self, seen: Overview) -> None:
        self.rungs = {row.number: row.rungs for row in seen.trials}
        self.ended = {row.number for row in seen.trials if row.finished}
        self.lock = threading.Lock()

    def tell(self, seen: Overview, console: Console, clock: _Clock) -> None:
        """Print what is new in `seen`."""
        with self.lock:
            for row in seen.trials:
                # A trial is read by several statements: its values may show up after its rungs.
                is_whole = row.val_accuracy is not None and row.lr is not None
                if row.rungs != self.rungs.get(row.number, ()) and is_whole:
                    self.rungs[row.number] = row.rungs
                    _say(console, f"trial {row.number}: {_rung_line(row, seen)}")
                if row.finished and row.number not in self.ended:
                    self.ended.add(row.number)
                    _say(console, f"trial {row.number}: {row.outcome}. {_count(seen, clock)}")


def _say(console: Console, line: str) -> None:
    console.print(f"{time.strftime('%H:%M:%S')} {line}", highlight=False, soft_wrap=True)


def _rung_line(row: TrialRow, seen: Overview) -> str:
    epochs = row.rungs[-1] / seen.identity.train_images
    return (
        f"{row.val_accuracy:.2%} after {counted(epochs, 'epoch')} "
        f"(lr {row.lr:.2e}, batch size {row.batch_size})"
    )


def _count(seen: Overview, clock: _Clock) -> str:
    parts = [f"{len(seen.ended)} of {len(seen.counted)} trials ended", clock.outlook(seen)]
    return ", ".join(part for part in parts if part)


def _live_view(seen: Overview, clock: _Clock, height: int) -> Group:
    """As many of the latest trials as fit; those that wait are only counted."""
    head = Table.grid()
    head.add_row(Text.assemble((seen.study, "bold"), "  ", _count(seen, clock)))
    head.add_row(ProgressBar(len(seen.counted), len(seen.ended), width=BAR_WIDTH))
    return Group(head, trials_table(seen, max(height - LIVE_MARGIN, 1)))


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
