"""Workers × threads on a CPU: how many images per second k processes train together.

Run as a program it is one of those processes: `python -m objectives.layouts`, the probe as a line
of JSON on its input.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from models.registry import variant
from objectives.data import load_search_data
from objectives.data_options import DataOptions
from objectives.datasets import dataset
from objectives.execution import FAST
from objectives.precision import Precision
from objectives.recipe import TrainConfig
from objectives.run import WARM_UP_STEPS, start
from objectives.training import train

LR = 1e-4
ENDLESS = (1 << 40,)  # images


@dataclass(frozen=True)
class Layout:
    """Processes that train at the same time."""

    workers: int
    threads: int  # of each

    def __str__(self) -> str:
        return f"{self.workers} × {self.threads}"


@dataclass(frozen=True)
class Probe:
    """What the processes train."""

    model: str
    switches: dict[str, Any]
    dataset: str
    data_dir: str
    batch_size: int
    precision: Precision = "float32"
    image_size: int | None = None
    skip_broken: bool = False


def layouts(cores: int) -> list[Layout]:
    """All ways of giving each of `cores` to one worker, fewest workers first."""
    return [Layout(count, cores // count) for count in range(1, cores + 1) if cores % count == 0]


def images_per_s(layout: Layout, probe: Probe, seconds: float) -> float:
    """Of all workers of `layout` together, over the same `seconds`; threads of a CPU.

    Raises RuntimeError, with the last line that it said, where a process fails.
    """
    command = [sys.executable, "-m", "objectives.layouts", str(layout.threads), str(seconds)]
    root = Path(__file__).resolve().parents[1]  # need not be installed
    processes = [
        subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(layout.workers)
    ]
    try:
        for process in processes:
            _tell(process, json.dumps(asdict(probe)))
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it has warmed up
        for process in processes:
            _tell(process, "go")
        return sum(_result(process) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _tell(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has failed; its result says so


def _result(process: "subprocess.Popen[str]") -> float:
    assert process.stdout is not None
    assert process.stderr is not None
    if line := process.stdout.readline():
        return float(line)
    said = process.stderr.read().strip().splitlines()
    raise RuntimeError(said[-1] if said else f"it ended with code {process.wait()}")


def _train(probe: Probe, threads: int, seconds: float) -> float:
    """Images per second of this process, from the moment that it is told to go."""
    torch.set_num_threads(threads)
    options = DataOptions(probe.image_size, probe.skip_broken)
    data = load_search_data(dataset(probe.dataset, Path(probe.data_dir), options))
    config = TrainConfig(
        model=probe.model,
        switches=variant(probe.model).switches(**probe.switches),
        dataset=probe.dataset,
        lr=LR,
        batch_size=probe.batch_size,
        rungs=ENDLESS,
        train_images=len(data.train),
        seed=0,
        precision=probe.precision,
    )
    run = start(config, data, torch.device("cpu"), FAST)
    steps = train(run, lambda: True)
    for _ in range(WARM_UP_STEPS):
        next(steps)
    print("ready", flush=True)
    sys.stdin.readline()
    first, began_s = run.images_seen, time.perf_counter()
    while (elapsed_s := time.perf_counter() - began_s) < seconds:
        next(steps)
    return (run.images_seen - first) / elapsed_s


def main() -> None:
    """Train as the line on the input says, and print the speed."""
    probe = Probe(**json.loads(sys.stdin.readline()))
    print(_train(probe, int(sys.argv[1]), float(sys.argv[2])))


if __name__ == "__main__":
    main()
