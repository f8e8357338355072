"""Processes of `bnvit-study`, and servers of MLflow, forked from one which has imported everything.

That takes 0.1 s instead of 4 s of a busy processor. What they do, and how they end, is the same;
only their command line, and the environment that the kernel shows of them, are another's.
"""

import atexit
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

PAUSE_VARIABLE = "BNVIT_TEST_PAUSE_S"
"""Seconds before each step of training: a trial lasts, and leaves the processor to others."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.integration.preloaded"])
_said = tempfile.TemporaryDirectory(prefix="bnvit-said-")
atexit.register(_said.cleanup)
_numbers = count()


def fork(line: str, environment: Mapping[str, str], out: Path, err: Path) -> ForkServerProcess:
    """Start `bnvit-study LINE`; what it says is added to two files.

    The environment must have OMP_NUM_THREADS.
    """
    return call(_be_command, line, dict(environment), out, err)


def fork_torchrun(
    line: str, processes: int, environment: Mapping[str, str], out: Path, err: Path
) -> ForkServerProcess:
    """Start `torchrun --nproc-per-node PROCESSES --no-python bnvit-study LINE`."""
    return call(_be_torchrun, line, processes, dict(environment), out, err)


def fork_mlflow(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path
) -> ForkServerProcess:
    """Start `mlflow server ARGUMENTS --workers 1`, which leads its own group of processes."""
    return call(_be_mlflow, arguments, dict(environment), log)


def call(function: Callable[..., None], *given: object) -> ForkServerProcess:
    """Start a process that does nothing but call `function`, of a module, with what is `given`."""
    process = _forks.Process(target=function, args=given)
    process.start()
    return process


def _be_command(line: str, environment: dict[str, str], out: Path, err: Path) -> None:
    _surround(environment, out, err)
    if PAUSE_VARIABLE in environment:
        _pause_before_each_step(float(environment[PAUSE_VARIABLE]))
    sys.argv = ["bnvit-study", *shlex.split(line)]
    import torch

    from study.entry import main

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # it is too late for the variable
    main()


def _pause_before_each_step(seconds: float) -> None:
    from objectives import training

    advance = training._advance

    def pause_and_advance(*given: Any) -> None:
        time.sleep(seconds)
        advance(*given)

    training._advance = pause_and_advance  # type: ignore[assignment]


def _be_torchrun(
    line: str, processes: int, environment: dict[str, str], out: Path, err: Path
) -> None:
    """Torchrun's own agent, whose workers are forked from this process: they import nothing."""
    _surround(environment, out, err)
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, _be_one_of_torchrun)(line, environment, out, err)


def _be_one_of_torchrun(line: str, environment: dict[str, str], out: Path, err: Path) -> None:
    try:
        _be_command(line, environment, out, err)
    except SystemExit as end:
        print(f"process {os.environ['RANK']} ends with {end.code}", file=sys.stderr)
        if end.code:
            raise  # else the agent would wait for what this function returns


def _be_mlflow(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    _surround(environment, log, log)
    os.setsid()
    import mlflow.server
    import uvicorn
    from mlflow.cli import cli

    def become(command: Sequence[str], extra_env: Mapping[str, str], **_: object) -> None:
        os.environ.update(extra_env)
        assert list(command[1:3]) == ["-m", "uvicorn"]
        sys.argv = list(command[2:])
        uvicorn.main()

    # It would start a process that imports it all again.
    mlflow.server._exec_cmd = become  # type: ignore[assignment, attr-defined]
    cli(["server", "--workers", "1", *arguments])


def _surround(environment: Mapping[str, str], out: Path, err: Path) -> None:
    """Have this environment and no other, and say all to these files."""
    from tests.integration.preloaded import GIVEN

    for name in GIVEN - environment.keys():
        os.environ.pop(name, None)
    os.environ.update(environment)
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


@dataclass
class Forked:
    """A command that was forked, with what tests ask of a `subprocess.Popen`."""

    process: ForkServerProcess
    out: Path
    err: Path

    @classmethod
    def start(cls, line: str, environment: Mapping[str, str], processes: int = 1) -> "Forked":
        """Start `bnvit-study LINE`, several of it by torchrun."""
        number = next(_numbers)
        out, err = (Path(_said.name) / f"{number}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        if processes > 1:
            return cls(fork_torchrun(line, processes, environment, out, err), out, err)
        return cls(fork(line, environment, out, err), out, err)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None, "it was started"
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; below 0 after a signal."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.process.terminate()

    def kill(self) -> None:
        """End it."""
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; all that it has said, on standard output and standard error."""
        self.process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("bnvit-study", timeout or 0.0)
        return self.out.read_text(), self.err.read_text()
