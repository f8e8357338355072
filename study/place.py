"""What a place for checkpoints is; what goes wrong with one, told in time and no password."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote

import tenacity

from models.errors import BnvitError, first_line

POLL_S = 0.1
FIRST_WAIT_S = 1.0  # between two tries
LONGEST_WAIT_S = 15.0

T = TypeVar("T")

# To the last @, as an odd password may hold slashes; also of what is no URL for want of a scheme.
_PASSWORD = re.compile(r"((?:^|://)[^:/@]*:)(?!//)(.+)@")


class Place(Protocol):
    """A study's files by trial, `trial-3`, where every node reaches them. Raises PlaceError."""

    def names(self, trial: str) -> list[str]:
        """The files of a trial; none if it has no folder. Some may be others' half-written ones."""

    def put(self, trial: str, path: Path) -> None:
        """Copy a file there under its own name, which never shows half of it."""

    def get(self, trial: str, name: str, to: Path) -> Path:
        """Copy a file into the folder `to`; returns where it lies."""

    def delete(self, trial: str, name: str | None) -> None:
        """Delete a file, or with None the whole trial; what is missing is deleted already."""

    def delete_all(self) -> None:
        """Delete all trials of the study."""


class PlaceError(BnvitError):
    """A place cannot be read or written at present; `where` is its URL without a password."""

    def __init__(self, reason: str, where: str | None = None) -> None:
        super().__init__(reason if where is None else f"{where} ({reason})")
        self.reason = reason


@contextmanager
def errors_told(url: str) -> Iterator[None]:
    """Turn any error, as each driver has its own, into a PlaceError without the URL's password."""
    try:
        yield
    except Exception as error:
        told = _of_the_network(error) or error
        reason = first_line(str(told))
        if not getattr(told, "strerror", None):  # what others say is often no more than a path
            reason = f"{type(told).__name__}: {reason}"
        for link in url.split("::"):
            for _, password in _PASSWORD.findall(link):
                for secret in (password, unquote(password)):
                    reason = reason.replace(secret, "***")
        raise PlaceError(reason, shown_place(url)) from None


def _of_the_network(error: BaseException) -> BaseException | None:
    """What the system said of a connection that failed, below what libraries make of it."""
    first = error
    while first.__context__ is not None:
        first = first.__context__
    return first if isinstance(first, ConnectionError | TimeoutError | socket.gaierror) else None


def shown_place(url: str) -> str:
    """An fsspec URL with stars for its password."""
    return _PASSWORD.sub(r"\1***@", url)


def never() -> bool:
    """As what ends a wait: nothing does."""
    return False


def within(seconds: float, call: Callable[[], T], is_over: Callable[[], bool] = never) -> T:
    """`call()`, or PlaceError after `seconds` or once `is_over`; its thread is left behind then."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    until_s = time.monotonic() + seconds
    while not wait_for([future], POLL_S).done:
        if is_over():
            raise PlaceError("no answer before the worker was to leave")
        if time.monotonic() > until_s:
            raise PlaceError(f"no answer within {seconds:g} s")
    return future.result()


@dataclass(frozen=True)
class Wait:
    """For how long a place is asked again and again; for 0 s, once."""

    seconds: float = 0.0
    is_over: Callable[[], bool] = never


def patiently(ask: Callable[[], T], wait: Wait, note: Callable[[PlaceError], None]) -> T:
    """`ask()`, again until it answers; its PlaceError when `wait` is over. `note` has the first."""

    def sleep(seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and not wait.is_over():
            time.sleep(POLL_S)

    def tell_once(state: tenacity.RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        if state.attempt_number == 1 and isinstance(error, PlaceError):
            note(error)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(PlaceError),
        wait=tenacity.wait_random_exponential(FIRST_WAIT_S, LONGEST_WAIT_S),
        stop=lambda state: wait.is_over() or tenacity.stop_after_delay(wait.seconds)(state),
        sleep=sleep,
        before_sleep=tell_once,
        reraise=True,
    )
    return retrying(ask)
