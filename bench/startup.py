"""How long commands take to start, how soon a worker trains, and how much memory it takes.

    python bench/startup.py --repeats 10

Hardware: 2 cores, 4 GB of memory, and nothing else that works on them.
Expected time: 9 min for 10 repeats; 10 s more to fetch MNIST, without --data-dir.

The user time, of a command with its workers, tells how much it does, however busy the machine is.
Each measurement of a worker has an empty study of its own, and ends where
`objectives.training.train` begins.
"""

import argparse
import json
import os
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from objectives.hardware import processor
from objectives.search_space import SearchSpace
from study.request import Request
from study.service import open_session
from study.settings import Settings, read_settings
from study.storage import open_store

ROOT = Path(__file__).resolve().parents[1]
PROBE = ROOT / "bench" / "startup_probe"
POLL_S = 0.005
BEGIN_TIMEOUT_S = 120.0
THREADS = 2
WORKERS = 4
LARGEST_BATCH = 120  # by default
MEMORY_REPEATS = 3
HEADINGS = ("what", "median", "least", "most", "user time")
REQUEST = Request(
    model="vitbn",
    trials=1,
    epochs=1,
    train_images=2_000,
    space=SearchSpace(batch_size=(LARGEST_BATCH, LARGEST_BATCH)),
    device="cpu",
)


@dataclass(frozen=True)
class Row:
    """One thing that was measured several times."""

    what: str
    unit: str
    values: list[float]
    user_s: list[float]

    def cells(self) -> list[str]:
        """A row of the table."""
        digits = 2 if self.unit == "s" else 0
        told = (statistics.median(self.values), min(self.values), max(self.values))
        shown = [f"{value:.{digits}f} {self.unit}" for value in told]
        return [self.what, *shown, f"{statistics.median(self.user_s):.2f} s"]


def rows(settings: Settings, repeats: int) -> Iterator[Row]:
    """All that is measured."""
    yield commands("--help", settings, repeats)
    yield commands("run --help", settings, repeats)
    study = new_study(settings)
    yield commands("studies", settings, repeats, "studies, and the server's start and stop")
    with open_store(settings):
        yield commands("studies", settings, repeats)
        yield commands(f"show {study}", settings, repeats, "show")
        yield commands("status", settings, repeats)
        lines = [f"worker {new_study(settings)}" for _ in range(repeats)]
        yield first_steps(lines, settings, "worker, until it trains")
        lines = [run_command(REQUEST) for _ in range(repeats)]
        yield first_steps(lines, settings, "run, until its worker trains")
        several = replace(REQUEST, trials=WORKERS, workers=WORKERS)
        lines = [run_command(several) for _ in range(repeats)]
        yield first_steps(lines, settings, f"run, until its {WORKERS} workers train", WORKERS)
        yield peak_memory(settings, min(repeats, MEMORY_REPEATS))


def commands(line: str, settings: Settings, repeats: int, what: str = "") -> Row:
    """How long a command takes, from launch to end."""
    walls, users = [], []
    for _ in range(repeats):
        began_s = time.perf_counter()
        used = ended(launch(line, settings), line)
        walls.append(time.perf_counter() - began_s)
        users.append(used.ru_utime)
    return Row(what or line, "s", walls, users)


def ended(process: "subprocess.Popen[bytes]", line: str) -> resource.struct_rusage:
    """What a command took, once it has ended; raises RuntimeError where that was by an error."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode} of: bnvit-study {line}")
    return used


def first_steps(lines: list[str], settings: Settings, what: str, workers: int = 1) -> Row:
    """How long it takes until all workers train, with each of the lines."""
    walls, users = zip(*(first_step(line, settings, workers) for line in lines), strict=True)
    return Row(what, "s", list(walls), list(users))


def first_step(line: str, settings: Settings, workers: int) -> tuple[float, float]:
    """Seconds from launch until so many trials train, and user time until then."""
    with tempfile.TemporaryDirectory() as folder:
        begun = Path(folder) / "begun"
        began_s = time.time()
        process = launch(line, settings, begun)
        while len(times := begun.read_text().split() if begun.exists() else []) < workers:
            if process.poll() is not None or time.time() - began_s > BEGIN_TIMEOUT_S:
                raise RuntimeError(f"nothing trains with: bnvit-study {line}")
            time.sleep(POLL_S)
        taken_s = float(times[-1]) - began_s
        parent = psutil.Process(process.pid)
        crew = [parent, *parent.children(recursive=True)]
        user_s = sum(member.cpu_times().user for member in crew)
        process.send_signal(signal.SIGTERM)
        process.wait()
    return taken_s, user_s


def peak_memory(settings: Settings, repeats: int) -> Row:
    """How much memory a worker takes for a whole trial; nothing of it depends on the epochs."""
    peaks, users = [], []
    for _ in range(repeats):
        line = f"worker --threads {THREADS} {new_study(settings)}"
        used = ended(launch(line, settings), line)
        peaks.append(used.ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10))
        users.append(used.ru_utime)
    what = f"worker, memory at batch size {LARGEST_BATCH}, {THREADS} threads"
    return Row(what, "MiB", peaks, users)


def new_study(settings: Settings) -> str:
    """A study of one trial that nobody has begun."""
    name = f"startup-{uuid4().hex[:6]}"
    with open_session(replace(REQUEST, study=name), settings, lambda _: None):
        return name


def run_command(request: Request) -> str:
    """The line that starts a new study."""
    command = replace(request, study=f"startup-{uuid4().hex[:6]}").command()
    return command.removeprefix("bnvit-study ")


def launch(line: str, settings: Settings, begun: Path | None = None) -> "subprocess.Popen[bytes]":
    """Start `bnvit-study LINE`; who begins to train notes the time in `begun`."""
    probe = {} if begun is None else {"BENCH_BEGUN_FILE": str(begun)}
    environment = {
        **os.environ,
        "BNVIT_DATA_DIR": str(settings.data_dir),
        "OMP_NUM_THREADS": str(THREADS),
        "PYTHONPATH": os.pathsep.join([str(PROBE), str(ROOT)]),
        **probe,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "study.entry", *shlex.split(line)],
        cwd=ROOT,  # which Python searches before all other folders
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def table(measured: list[Row]) -> str:
    """The rows as Markdown."""
    cells = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)], *(row.cells() for row in measured)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def summary(measured: list[Row], repeats: int) -> dict[str, Any]:
    """The rows as the page of `make bench` shows them."""
    return {
        "command": shlex.join(["python", "bench/startup.py", *sys.argv[1:]]),
        "date": str(date.today()),
        "about": f"{repeats} repeats, {THREADS} threads of {processor()}.",
        "rows": [
            {"what": what, "median": median, "spread": f"{least}–{most}", "user": user}
            for what, median, least, most, user in (row.cells() for row in measured)
        ],
    }


def main() -> None:
    """Measure and print. Studies that were made in a given data folder stay there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--data-dir", help="its studies count too; default: a new folder")
    parser.add_argument(
        "--json", type=Path, help="write the numbers there, for docs/performance.md"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bnvit-startup-") as folder:
        Path(folder).chmod(0o755)  # for the server's account, where this runs as root
        settings = read_settings({"data_dir": str(Path(given.data_dir or folder).absolute())})
        measured = list(rows(settings, given.repeats))
    print(table(measured))
    if given.json:
        given.json.write_text(json.dumps(summary(measured, given.repeats), indent=1) + "\n")


if __name__ == "__main__":
    main()
