"""What `up` has started, kept in a file, so that `up`, `down` and a crash find it again."""

import fcntl
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CLOCK_TOLERANCE_S = 2.0  # the system tells when it was started to the second
LEFTOVER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Running:
    """A process that leads a group of its own; its number alone may be another's by now."""

    pid: int
    boot: str  # which start of the system it belongs to
    after_boot_s: float  # so that a clock that is set changes nothing

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this number now. Raises psutil.NoSuchProcess."""
        return cls(pid, _boot(), _after_boot_s(psutil.Process(pid)))

    def process(self) -> psutil.Process | None:
        """The process, if it is still there."""
        try:
            found = psutil.Process(self.pid)
            return found if self._is(found) and is_alive(found) else None
        except psutil.NoSuchProcess:
            return None

    def group(self) -> list[psutil.Process]:
        """It and its children, as far as they are there; also where it has ended before them."""
        if self.boot != _boot():
            return []
        with suppress(psutil.NoSuchProcess):
            if not self._is(psutil.Process(self.pid)):
                return []  # another's number: nobody gets that of a group which is there
        return [process for process in psutil.process_iter() if _leader(process) == self.pid]

    def _is(self, process: psutil.Process) -> bool:
        apart_s = abs(_after_boot_s(process) - self.after_boot_s)
        return self.boot == _boot() and apart_s < _CLOCK_TOLERANCE_S

    def end(self) -> bool:
        """End what is left of the group; returns whether anything was."""
        left = self.group()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                if self.group():
                    os.killpg(self.pid, number)
            psutil.wait_procs(left, LEFTOVER_TIMEOUT_S)
        return bool(left)


@dataclass(frozen=True)
class State:
    """A stack that was started."""

    keeper: Running
    services: Mapping[str, Running]  # by name
    dashboard_url: str
    mlflow_url: str
    password_at: str | None  # where the login's password is, in words; None: there is no login

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

    def leftovers(self) -> Iterator[tuple[str, Running]]:
        """Services, or parts of them, that are there without their keeper."""
        if self.keeper.process() is None:
            yield from ((name, one) for name, one in self.services.items() if one.group())


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


def is_alive(process: psutil.Process) -> bool:
    """Whether a process works; one that has ended and whose parent has not asked does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _boot() -> str:
    """Tells one start of the system from another."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # macOS
        return str(int(psutil.boot_time()))


def _after_boot_s(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()


def _leader(process: psutil.Process) -> int | None:
    """Whose group a process that works belongs to."""
    try:
        return os.getpgid(process.pid) if is_alive(process) else None
    except ProcessLookupError:
        return None
