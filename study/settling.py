"""What becomes of a spool's line: it is replayed, kept for later, or set aside."""

import logging
from collections.abc import Callable
from enum import Enum, auto

import optuna
from sqlalchemy.exc import DataError, SQLAlchemyError

from models.errors import first_line
from study.applier import Applier, NotYetError
from study.errors import LockedError
from study.spool import Entry, Spool
from study.spool_line import Line
from study.storage import Store
from study.tracking import TrackingOutageError

# Errors that pass. OSError: of the spool's own disk.
OUTAGES = (
    TrackingOutageError,
    SQLAlchemyError,
    LockedError,
    optuna.exceptions.StorageInternalError,
    OSError,
)

log = logging.getLogger(__name__)


def connected(store: Store, uri: str, is_best: Callable[[Line], bool], waits: bool) -> Applier:
    """An applier that has reached MLflow; raises TrackingOutageError where it cannot."""
    try:
        return Applier(store, uri, is_best, waits)
    except Exception as error:  # no line's fault, so none is set aside for it
        raise TrackingOutageError(str(error)) from error


class Fate(Enum):
    """What became of a line."""

    REPLAYED = auto()
    OUTDATED = auto()  # of a trial that is no more, or of an attempt that was overtaken: dropped
    REJECTED = auto()  # set aside, as it will never be taken


def settle(spool: Spool, entry: Entry, applier: Applier) -> Fate:
    """Replay the head of `spool`, or set it aside if that will never succeed."""
    line = entry.line
    if line is None:
        path = spool.set_aside(entry)
        log.warning(
            "spool %s, line %d cannot be read; set aside in %s", spool.path, entry.number, path
        )
        return Fate.REJECTED
    try:
        is_current = applier.apply(line, spool.folder)
    except Exception as error:
        if isinstance(error, (NotYetError, *OUTAGES)) and not isinstance(error, DataError):
            raise
        path = spool.set_aside(entry)
        log.warning(
            "%s: '%s' of study '%s', trial %s is not recorded; set aside in %s",
            first_line(str(error)) or type(error).__name__,
            line.op,
            line.study,
            "-" if line.number is None else line.number,
            path,
        )
        log.debug("trace", exc_info=error)
        return Fate.REJECTED
    spool.done(entry)
    return Fate.REPLAYED if is_current else Fate.OUTDATED
