"""One of the processes that `layouts` times: `python -m objectives.layout_probe THREADS SECONDS`.

It is told what to train as a line of JSON, answers once it has warmed up, and trains when told to.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from models.registry import stored_switches
from objectives.data import load_search_data
from objectives.data_options import DataOptions
from objectives.datasets import dataset
from objectives.execution import FAST
from objectives.precision import Precision
from objectives.recipe import TrainConfig
from objectives.run import WARM_UP_STEPS
from objectives.starting import start
from objectives.training import train

LR = 1e-4
ENDLESS = (1 << 40,)  # images


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
    train_images: int | None = None  # None: the whole train split
    compiled: bool = False

    def as_line(self) -> str:
        """JSON, as the process reads it."""
        return json.dumps(asdict(self))

    def config(self, train_images: int) -> TrainConfig:
        """A training run without an end."""
        return TrainConfig(
            model=self.model,
            switches=stored_switches(self.model, self.switches),
            dataset=self.dataset,
            lr=LR,
            batch_size=self.batch_size,
            rungs=ENDLESS,
            train_images=train_images,
            seed=0,
            precision=self.precision,
        )


def main() -> None:
    """Train as the line on the input says, and answer with the images per second."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed is no answer
    threads, seconds = int(sys.argv[1]), float(sys.argv[2])
    probe = Probe(**json.loads(sys.stdin.readline()))
    torch.set_num_threads(threads)
    options = DataOptions(probe.image_size, probe.skip_broken)
    source = dataset(probe.dataset, Path(probe.data_dir), options)
    data = load_search_data(source).limited(probe.train_images)
    execution = replace(FAST, compiled=probe.compiled)
    run = start(probe.config(len(data.train)), data, torch.device("cpu"), execution)
    steps = train(run, lambda: True)
    for _ in range(WARM_UP_STEPS):
        next(steps)
    print("ready", file=answers, flush=True)
    if not sys.stdin.readline():
        return  # nobody waits for it any more
    first, began_s = run.images_seen, time.perf_counter()
    while (elapsed_s := time.perf_counter() - began_s) < seconds:
        next(steps)
    print((run.images_seen - first) / elapsed_s, file=answers, flush=True)


if __name__ == "__main__":
    main()
