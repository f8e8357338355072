"""What a check of the doctor finds, and what becomes of a check that fails itself."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from models.errors import BnvitError

# What is wrong with the thing that is checked, in the words of whichever library meets it first.
_FAILURES = (
    BnvitError,
    OptunaError,
    SQLAlchemyError,
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
)


@dataclass(frozen=True)
class Finding:
    """How one thing stands."""

    subject: str
    is_good: bool
    message: str
    advice: str = ""  # what to do about a bad one
    details: tuple[str, ...] = ()  # where the message names only some


Check = Callable[[], Iterable[Finding]]


def carried_out(subject: str, check: Check) -> Iterator[Finding]:
    """The findings of `check`; where it fails, what it had found, and that."""
    try:
        for finding in check():
            yield replace(finding, advice="") if finding.is_good else finding
    except _FAILURES as error:
        yield failure(subject, error)


def failure(subject: str, error: BaseException) -> Finding:
    """The finding that `error` is; one of ours says last what to do about it."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, BnvitError):
        return Finding(subject, False, f"{type(error).__name__}: {text}")
    message, _, advice = text.rpartition("; ")
    return Finding(subject, False, message or advice, advice if message else "")
