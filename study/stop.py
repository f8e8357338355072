"""A clean stop: the first signal is noted, a further Ctrl-C ends the process at once."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


@dataclass
class Stop:
    """Whether the process was asked to stop, and by which signal."""

    signal: int | None = None
    at_once: bool = False  # a KeyboardInterrupt was raised, whatever became of it
    event: threading.Event = field(default_factory=threading.Event)  # set when asked to

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.event.is_set()

    @property
    def exit_code(self) -> int:
        """Exit code by the shell's convention after the signal; 0 without one."""
        return 128 + self.signal if self.signal is not None else 0

    def request(self, signal_number: int) -> None:
        """Ask for a stop."""
        self.signal = signal_number
        self.event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but wake up as soon as a stop is asked for; returns whether it was."""
        return self.event.wait(seconds)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """A `Stop` that SIGINT, SIGTERM or SIGHUP sets; a further SIGINT raises KeyboardInterrupt.

    A further SIGTERM does not: a supervisor may send it to all processes of a group, to some by
    way of their parent again. A hang-up that is ignored, as under nohup, stays ignored.
    """
    stop = Stop()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            stop.at_once = True
            raise KeyboardInterrupt
        if not stop.requested:
            stop.request(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with _handled(numbers, handle), _interruptions_lost_in_silence():
        yield stop


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM for a moment, as a half-done cleanup would leave something behind.

    Only the main thread gets signals; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled([signal.SIGINT, signal.SIGTERM], signal.SIG_IGN):
        yield


@contextmanager
def _handled(
    numbers: Sequence[signal.Signals], handler: Callable[..., None] | signal.Handlers
) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def _interruptions_lost_in_silence() -> Iterator[None]:
    """Print no trace of a KeyboardInterrupt that struck where Python drops exceptions.

    Such places are finalisers and callbacks of weak references. The stop that was asked for first
    goes on, and the next signal interrupts again.
    """
    previous = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if lost.exc_type is not KeyboardInterrupt:
            previous(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous
