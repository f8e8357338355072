"""Log lines on stderr: for people, or as JSON for machines, with what each is about."""

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_identity: dict[str, Any] = {}  # of this process, in all of its threads
_context: ContextVar[dict[str, Any]] = ContextVar("context", default={})  # noqa: B039  # replaced, never changed
PACKAGES = ("study", "objectives", "models")
NARRATORS = ("study.worker", "study.docket", "study.shelf")


def identify(**fields: object) -> None:
    """Add `fields`, as the worker's name, to all JSON lines from now on."""
    _identity.update(fields)


def be_brief() -> None:
    """Leave what a worker does to the `run` that started it, which shows it already."""
    for name in NARRATORS:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def context(**fields: object) -> Iterator[None]:
    """Add `fields`, as study or trial, to the JSON lines that are logged meanwhile."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


class PeopleHandler(logging.Handler):
    """Writes to whatever stderr is at the time: a live table replaces it for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, with the time of day."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        _print(f"{at} {record.levelname.lower()}: {record.getMessage()}")


class JsonHandler(logging.Handler):
    """One JSON object per line: time, level, message, node, process, and the context."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            "node": socket.gethostname(),
            "pid": os.getpid(),
            **_identity,
            **_context.get(),
        }
        _print(json.dumps(told, default=str))


def _print(line: str) -> None:
    with suppress(OSError):  # whoever read it may have died: no reason to stop a worker
        print(line, file=sys.stderr, flush=True)


def log_to_stderr(level: int, as_json: bool) -> None:
    """Log our own packages from `level` on (information at least), others' warnings."""
    handler = JsonHandler() if as_json else PeopleHandler()
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(min(level, logging.INFO))
