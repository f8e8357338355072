"""Workers as if on nodes of their own: real processes with separate data folders."""

import multiprocessing
import os
import shlex
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

# Imported once, then forked: a worker that starts in 0.1 s instead of 4 s of a busy processor
# leaves that for training, however often it is killed.
PRELOADED = [
    "study.entry",
    "study.conduct",
    "study.joining",
    "study.replay",
    "study.mlflow_tracker",
    "mlflow.store.tracking.sqlalchemy_store",  # MLflow imports it with its first database …
    "torch._dynamo",  # … and torch this with its first optimizer
    "scipy.stats",
]

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(PRELOADED)


def _be_worker(line: str, environment: dict[str, str], log: str) -> None:
    """`bnvit-study LINE` in this process."""
    os.environ.update(environment)
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["bnvit-study", *shlex.split(line)]
    from study.entry import main

    main()


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
        given = {**self.environment, "BNVIT_DATA_DIR": str(self.folder)}
        self.process = _forks.Process(target=_be_worker, args=(self.line, given, str(self.log)))
        self.process.start()
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
