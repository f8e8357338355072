"""Workers as if on nodes of their own: real processes with separate data folders."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.integration.forks import fork


@dataclass
class Node:
    """A place where one worker runs at a time, again after it was killed."""

    folder: Path
    environment: dict[str, str]
    line: str
    starts: int = 0
    process: ForkServerProcess | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What its workers have said."""
        return self.folder / "worker.log"

    @property
    def is_alive(self) -> bool:
        """Whether its worker runs."""
        return self.process is not None and self.process.is_alive()

    def start(self) -> None:
        """Start a worker."""
        self.folder.mkdir(exist_ok=True)
        given = {**os.environ, **self.environment, "BNVIT_DATA_DIR": str(self.folder)}
        self.process = fork(self.line, given, self.log, self.log)
        self.starts += 1

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send its worker a signal; wait for the end of one that is killed."""
        if self.process is None or self.process.pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.join()

    @property
    def exit_code(self) -> int | None:
        """Of its last worker; None while it runs."""
        return None if self.process is None else self.process.exitcode
