"""What `up` has started, kept in a file, so that `up`, `down` and a crash find it again."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil


@dataclass(frozen=True)
class Running:
    """A process; its number alone may be another's by now."""

    pid: int
    started_at: float  # as the system tells it

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this number now. Raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process, if it is still there."""
        try:
            found = psutil.Process(self.pid)
            is_it = found.create_time() == self.started_at
        except psutil.NoSuchProcess:
            return None
        return found if is_it and found.status() != psutil.STATUS_ZOMBIE else None


@dataclass(frozen=True)
class State:
    """A stack that was started."""

    keeper: Running
    services: Mapping[str, Running]  # by name
    dashboard_url: str
    mlflow_url: str
    has_login: bool

    def write(self, folder: Path) -> None:
        """Keep it in `folder`."""
        part = folder / "state.json.part"
        part.write_text(json.dumps(asdict(self)))
        part.rename(folder / "state.json")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The state kept in `folder`; None if nothing was started, or was stopped in order."""
        try:
            told = json.loads((folder / "state.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        services = {name: Running(**one) for name, one in told.pop("services").items()}
        return cls(keeper=Running(**told.pop("keeper")), services=services, **told)

    @staticmethod
    def forget(folder: Path) -> None:
        """Nothing is running any more."""
        (folder / "state.json").unlink(missing_ok=True)


class KeeperLock:
    """Held by the one process that keeps a stack; free as soon as that is gone, however it went."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keeper.lock"

    def take(self) -> int | None:
        """A descriptor that holds the lock until it is closed; None if another process has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def is_held(self) -> bool:
        """Whether a process has it."""
        if not self._path.exists():
            return False
        descriptor = self.take()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False
