"""A spool: what is still to be told to MLflow, on local disk, a line of JSON each."""

import errno
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from study.spool_line import Line as Line
from study.spool_lock import SpoolInUseError, locked

SUFFIX = ".jsonl"
REJECTED = f"rejected{SUFFIX}"
DONE = b"#"  # written over the first byte of a line that needs no more replay: cannot be torn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """The first line of a spool that is still to be replayed."""

    offset: int
    number: int  # from 1, as editors count
    raw: bytes  # with its line end
    line: Line | None  # None: it cannot be read


class Spool:
    """An append-only file, locked for as long as it is open; its owner's death frees the lock.

    Appending and reading are safe from several threads. `changed` is notified of every line
    appended or done.
    """

    def __init__(self, folder: Path, name: str, *, is_left: bool = False) -> None:
        """Make a spool, or go on with one that a dead owner has left (`is_left`: only that)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / f"{name}{SUFFIX}"
        self.changed = threading.Condition()
        self.waiting = 0  # lines still to be replayed
        self._first = 0  # where the first line stands that is not done
        self._number = 1  # of that line
        self._end = 0
        fd = locked(self.path, must_exist=is_left)
        self._take_stock(fd)
        self._fd: int | None = fd

    @classmethod
    def take_over(cls, path: Path) -> "Spool | None":
        """A spool left behind; None if it has an owner, or is gone."""
        try:
            return cls(path.parent, path.name.removesuffix(SUFFIX), is_left=True)
        except (SpoolInUseError, FileNotFoundError):
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, line: Line) -> None:
        """Have a line on disk when this returns; raises OSError, keeping nothing of it."""
        raw = line.to_json().encode() + b"\n"
        with self.changed:
            fd = self._open_fd()
            try:
                if os.pwrite(fd, raw, self._end) < len(raw):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(fd)
                self._end += len(raw)
                self.waiting += 1
            except BaseException:
                os.ftruncate(fd, self._end)
                raise
            self.changed.notify_all()

    @property
    def waiting_bytes(self) -> int:
        """Size of the lines still to be replayed."""
        return self._end - self._first

    def head(self) -> Entry | None:
        """The first line that is not done; None where all are, or the spool is closed."""
        with self.changed:
            if self._fd is None:
                return None
            while self._first < self._end:
                raw = _line_at(self._fd, self._first)
                if _is_waiting(raw):
                    return Entry(self._first, self._number, raw, _parsed(raw))
                self._first += len(raw)
                self._number += 1
            self.waiting = 0
            return None

    def done(self, entry: Entry) -> None:
        """The head needs no more replay, neither now nor after a restart."""
        with self.changed:
            if self._fd is None:
                return  # closed under a request that hung; whoever takes over replays it again
            after = entry.offset + len(entry.raw)
            if after == self._end:
                os.ftruncate(self._fd, 0)
                self._first, self._number, self._end = 0, 1, 0
            else:
                os.pwrite(self._fd, DONE, entry.offset)
                self._first, self._number = after, entry.number + 1
            self.waiting -= 1
            self.changed.notify_all()

    def set_aside(self, entry: Entry) -> Path:
        """Keep the head as it is in another file, which is returned, and go on without it."""
        path = self.folder / REJECTED
        with path.open("ab") as file:
            file.write(entry.raw)
            file.flush()
            os.fsync(file.fileno())
        self.done(entry)
        return path

    def close(self) -> None:
        """Let go of the file, and delete it if nothing waits in it."""
        with self.changed:
            if self._fd is None:
                return
            if self.waiting == 0:
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None
            self.changed.notify_all()

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"the spool {self.path} is closed")
        return self._fd

    def _take_stock(self, fd: int) -> None:
        content = os.pread(fd, os.fstat(fd).st_size, 0)
        self._end = content.rfind(b"\n") + 1
        if self._end < len(content):
            log.debug("spool %s: its writer died in its last line, which is dropped", self.path)
            os.ftruncate(fd, self._end)
        self.waiting = sum(map(_is_waiting, content[: self._end].split(b"\n")))


def left_behind(folder: Path) -> list[Path]:
    """The spools in `folder` whose owners are dead, oldest first; empty ones are deleted."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}"), key=_age):
        if path.name == REJECTED:
            continue
        try:
            spool = Spool.take_over(path)
        except OSError as error:
            log.warning("spool %s cannot be read: %s", path, error.strerror or error)
            continue
        if spool is not None:
            if spool.waiting:
                found.append(path)
            spool.close()
    return found


def _line_at(fd: int, offset: int) -> bytes:
    """The line that begins at `offset`, with its end."""
    raw = b""
    while b"\n" not in raw:
        more = os.pread(fd, 1 << 16, offset + len(raw))
        raw += more or b"\n"  # somebody has cut the file short
    return raw[: raw.index(b"\n") + 1]


def _is_waiting(raw: bytes) -> bool:
    return not raw.startswith(DONE) and bool(raw.strip())


def _parsed(raw: bytes) -> Line | None:
    try:
        return Line.from_json(raw)
    except ValueError:
        return None


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # its owner has just deleted it
        return 0.0
