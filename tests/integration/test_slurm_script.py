"""The script for Slurm, run by bash as Slurm's daemon would; no Slurm is needed."""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from objectives.outcome import Outcome
from study.request import Request
from study.schema import workers
from study.service import Session, open_session
from study.settings import Settings
from study.studies import show_study
from tests.conftest import SUBSET, TINY, new_data_dir
from tests.integration.processes import until
from tests.integration.servers import TcpPostgres

PROGRAMS = Path(sysconfig.get_path("scripts"))
SCRIPT = Path(__file__).parents[2] / "deploy/slurm/worker.sbatch"
STUDY = "array"
TRIALS = 2
LONG = 20  # epochs: trials that last until something happens
STOP_S = 10  # within which a worker that is told to leave has left


@dataclass
class Array:
    """An array of jobs that was submitted in `folder`."""

    folder: Path
    tasks: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def start(self, more: str = "", programs: Path = PROGRAMS) -> "subprocess.Popen[str]":
        """Start the script as the next task, on a node of its own."""
        number = len(self.tasks)
        environment = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "SLURM_JOB_ID": str(100 + number),
            "SLURM_ARRAY_JOB_ID": "100",
            "SLURM_ARRAY_TASK_ID": str(number),
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_TMPDIR": str(self.folder / f"node-{number}"),
            "HOME": str(self.folder),
        }
        started = subprocess.Popen(
            ["bash", str(SCRIPT), *more.split()],
            cwd="/",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.tasks.append(started)
        return started

    def write_settings(self, text: str, mode: int = 0o600) -> None:
        """Write worker.env."""
        file = self.folder / "worker.env"
        file.write_text(text)
        file.chmod(mode)

    def cancel(self) -> None:
        """Kill what a task has left, which is nothing unless a test has failed."""
        for task in self.tasks:
            with suppress(ProcessLookupError):
                os.killpg(task.pid, signal.SIGKILL)
            task.communicate()


def finish(process: "subprocess.Popen[str]", timeout_s: float) -> tuple[int, str]:
    """Exit code and what was said."""
    said, _ = process.communicate(timeout=timeout_s)
    return process.returncode, said


def named_signal() -> signal.Signals:
    """The signal that Slurm is asked to send, to the batch shell alone."""
    (name,) = re.findall(r"^#SBATCH --signal=B:([A-Z0-9]+)@\d+$", SCRIPT.read_text(), re.MULTILINE)
    return signal.Signals[f"SIG{name}"]


@pytest.fixture
def array() -> Iterator[Array]:
    with new_data_dir() as folder:
        made = Array(folder)
        yield made
        made.cancel()


@pytest.fixture
def session(array: Array) -> Iterator[Session]:
    """A study in a Postgres with a password, which worker.env tells and no command line."""
    with TcpPostgres(array.folder) as server:
        settings = Settings(
            data_dir=array.folder / "submitter", storage_url=server.url(), mlflow_uri="none"
        )
        array.write_settings(
            f"BNVIT_STORAGE_URL=postgresql://bnvit@127.0.0.1:{server.port}/optuna\n"
            f"PGPASSWORD={server.password}\n"
            "MLFLOW_TRACKING_URI=none\n"
            f"BNVIT_CHECKPOINTS=file://{array.folder / 'shared'}\n",
        )
        request = Request(
            "vitbn", TINY, SUBSET, TRIALS, LONG, pruner="none", device="cpu", study=STUDY
        )
        with open_session(request, settings, lambda _: None) as opened:
            yield opened


def test_a_task_that_is_signalled_puts_its_trial_back_and_another_ends_the_study(
    session: Session, array: Array
) -> None:
    store = session.store
    first = array.start(f"--device cpu {STUDY}")
    until(lambda: len(show_study(store, STUDY).trials[0].rungs) >= 2)
    asked_s = time.monotonic()
    os.kill(first.pid, named_signal())
    code, said = finish(first, STOP_S)
    assert code == 0, said
    assert time.monotonic() - asked_s < STOP_S
    with store.engine.connect() as connection:
        assert connection.execute(workers.select()).all() == []
    with pytest.raises(ProcessLookupError):
        os.killpg(first.pid, 0)
    waiting = show_study(store, STUDY).trials[0]
    assert (waiting.outcome, waiting.attempt) == ("waiting", 1)
    assert list((array.folder / "shared").rglob("*.pt")), "a checkpoint where all nodes find it"

    code, said = finish(array.start(f"--device cpu {STUDY}"), 60)
    assert code == 0, said
    assert "goes on from" in said
    seen = show_study(store, STUDY)
    assert [row.outcome for row in seen.trials] == [Outcome.COMPLETE.value] * TRIALS
    assert [row.attempt for row in seen.trials] == [2, 1]
    assert seen.trials[0].rungs[: len(waiting.rungs)] == waiting.rungs


@pytest.fixture
def pretender(array: Array) -> Path:
    """A folder with a `bnvit-study` that tells what it was given and fails with 7."""
    program = array.folder / "bin" / "bnvit-study"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\nprintenv\nexit 7\n')
    program.chmod(0o755)
    return program.parent


def test_the_worker_gets_the_settings_as_they_stand_and_its_exit_code_is_the_tasks(
    array: Array, pretender: Path
) -> None:
    array.write_settings(
        "# as Docker and kubectl read it\n\n"
        "BNVIT_STORAGE_URL=postgresql://bnvit@host/optuna?a=1&b=$HOME\n"
        'PGPASSWORD=it\'s `id` "secret"\r\n'
        "MLFLOW_TRACKING_TOKEN=last=line",
    )
    code, said = finish(array.start("--idle-exit 5 some-study", pretender), STOP_S)
    line, *variables = said.splitlines()
    assert code == 7
    assert line.startswith("worker ")
    assert line.endswith(" --idle-exit 5 some-study")
    assert "secret" not in line
    node = array.folder / "node-0" / f"bnvit-study-{os.getuid()}"
    assert {
        "BNVIT_STORAGE_URL=postgresql://bnvit@host/optuna?a=1&b=$HOME",
        'PGPASSWORD=it\'s `id` "secret"',
        "MLFLOW_TRACKING_TOKEN=last=line",
        f"BNVIT_DATA_DIR={node}",
    } <= set(variables)
    assert node.stat().st_mode & 0o777 == 0o700


GOOD = "BNVIT_STORAGE_URL=postgresql://host/optuna\n"


@pytest.mark.parametrize(
    ("text", "mode", "part"),
    [
        (None, 0o600, "no settings in "),
        (GOOD, 0o640, "others can read "),
        ("PGPASSWORD=secret\n", 0o600, "BNVIT_STORAGE_URL is not set"),
        (f"{GOOD}export PGPASSWORD=secret\n", 0o600, "is not NAME=VALUE"),
        (GOOD, 0o600, "no bnvit-study in PATH"),
    ],
)
def test_bad_settings_are_one_line(array: Array, text: str | None, mode: int, part: str) -> None:
    if text is not None:
        array.write_settings(text, mode)
    code, said = finish(array.start(programs=array.folder), STOP_S)
    (line,) = said.splitlines()
    assert code == 2
    assert line.startswith("worker.sbatch: ")
    assert part in line
    assert "secret" not in line


def test_a_folder_that_somebody_else_has_prepared_is_refused(array: Array, pretender: Path) -> None:
    array.write_settings(GOOD)
    (array.folder / "node-0").mkdir()
    (array.folder / "node-0" / f"bnvit-study-{os.getuid()}").symlink_to(array.folder)
    code, said = finish(array.start(programs=pretender), STOP_S)
    assert code == 2
    assert "is somebody else's" in said


def test_bash_can_read_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs Debian's shellcheck")
def test_shellcheck_finds_nothing() -> None:
    told = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
