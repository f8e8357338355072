"""Riding out an outage of the store: what fails for want of a server is tried again."""

import logging
import math
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from study.connections import is_outage, reason_of
from study.errors import StoreAwayError
from study.stop import Stop

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


class Patience:
    """Tries again, with back-off and jitter, for up to `limit_s` or until a stop is asked for."""

    def __init__(self, limit_s: float, stop: Stop) -> None:
        self.limit_s = limit_s
        self.stop = stop
        self.last_outage_s = -math.inf  # by the monotonic clock

    def __call__(self, action: Callable[[], _Result]) -> _Result:
        """The result of `action`, which must be repeatable.

        Raises StoreAwayError when the store stays away, any other error of `action` at once.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_outage),
            wait=tenacity.wait_random_exponential(FIRST_WAIT_S, LONGEST_WAIT_S),
            stop=tenacity.stop_after_delay(self.limit_s)
            | tenacity.stop_when_event_set(self.stop.event),
            sleep=tenacity.sleep_using_event(self.stop.event),
            before_sleep=self._note,
        )
        began_s = time.monotonic()
        try:
            result = retrying(action)
        except tenacity.RetryError as error:
            cause = error.last_attempt.exception()
            assert cause is not None  # only errors are tried again
            raise _away(time.monotonic() - began_s, reason_of(cause)) from cause
        if retrying.statistics["attempt_number"] > 1:
            log.info("the store is back after %.0f s", time.monotonic() - began_s)
        return result

    def is_over(self, away_s: float) -> bool:
        """Whether a store that has been away for so long is waited for no more."""
        return away_s > self.limit_s

    def check(self, away_s: float) -> None:
        """Raise StoreAwayError where that is over."""
        if self.is_over(away_s):
            raise _away(away_s, "no sign of life got through")

    def _note(self, state: tenacity.RetryCallState) -> None:
        self.last_outage_s = time.monotonic()
        _tell_once(state)


def _tell_once(state: tenacity.RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        error = state.outcome.exception()
        assert error is not None
        log.warning("the store is away (%s); trying again until it is back", reason_of(error))


def _away(seconds: float, reason: str) -> StoreAwayError:
    return StoreAwayError(
        f"the store has been away for {seconds:.0f} s ({reason}); trials keep their checkpoints; "
        "run the same command again once it is back"
    )
