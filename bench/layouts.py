"""Workers × threads: how many images per second k processes train together, t threads each."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from contenders import COMPILED, config_of

from objectives.data import load_search_data
from objectives.datasets import dataset
from objectives.execution import FAST
from objectives.run import start
from objectives.training import train

WARM_UP_S = 3.0


@dataclass(frozen=True)
class Layout:
    """Processes that train at the same time."""

    workers: int
    threads: int  # of each

    def __str__(self) -> str:
        return f"{self.workers} × {self.threads}"


def layouts(cores: int) -> list[Layout]:
    """All ways of giving each core to one worker, fewest workers first."""
    return [Layout(count, cores // count) for count in range(1, cores + 1) if cores % count == 0]


def images_per_s(layout: Layout, model: str, way: str, data_dir: Path, seconds: float) -> float:
    """Of all workers of `layout` together, over the same `seconds`."""
    command = [sys.executable, __file__, model, way, str(layout.threads), str(data_dir)]
    begin_s = time.time() + 12.0  # when all have imported, read their data and warmed up
    processes = [
        subprocess.Popen([*command, str(begin_s), str(seconds)], stdout=subprocess.PIPE, text=True)
        for _ in range(layout.workers)
    ]
    return sum(float(process.communicate()[0]) for process in processes)


def _work(
    model: str, way: str, threads: int, data_dir: Path, begin_s: float, seconds: float
) -> None:
    torch.set_num_threads(threads)
    data = load_search_data(dataset("mnist", data_dir))
    execution = COMPILED if "compiled" in way else FAST
    precision = "bf16" if "bf16" in way else "float32"
    run = start(config_of(model, data, precision), data, torch.device("cpu"), execution)
    events = train(run, lambda: True)
    while time.time() < begin_s:
        next(events)
    first = run.images_seen
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < seconds:
        next(events)
    print((run.images_seen - first) / (time.perf_counter() - began_s))


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), *map(float, sys.argv[5:]))
