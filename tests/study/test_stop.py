"""Signals, sent to this process."""

import signal
from collections.abc import Callable

import pytest

from study.stop import stop_on_signals, uninterrupted


class Finalised:
    """Calls `last` when it is collected."""

    def __init__(self, last: Callable[[], None]) -> None:
        self.last = last

    def __del__(self) -> None:
        self.last()


def test_the_first_signal_is_noted_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert (stop.requested, stop.at_once, stop.exit_code) == (True, False, 130)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.at_once
    assert signal.getsignal(signal.SIGINT) is before


def test_a_further_sigterm_changes_nothing() -> None:
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert (stop.signal, stop.at_once) == (signal.SIGTERM, False)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_interruption_that_a_finaliser_swallows_prints_no_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        Finalised(lambda: signal.raise_signal(signal.SIGINT))
        assert stop.at_once
        with pytest.raises(KeyboardInterrupt):  # the next one is heard
            signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err == ""


def test_a_cleanup_is_not_interrupted() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the suite ignores it
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
