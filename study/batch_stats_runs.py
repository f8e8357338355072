"""The runs of `batch-stats`, trained in this process one after another."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from models.errors import InputError
from objectives.data import SearchData, load_search_data
from objectives.data_options import DataOptions
from objectives.datasets import dataset
from objectives.hardware import device_label
from objectives.metrics import RungMetrics
from objectives.nbs import Judged, judge
from objectives.starting import start
from objectives.training import train
from study import data_dir
from study.batch_stats_request import BatchStatsRequest
from study.environment import device_of, revision, versions
from study.settings import Settings
from study.words import counted

Say = Callable[[str], None]


@dataclass(frozen=True)
class Swept:
    """One run of the sweep."""

    nbs: int  # images
    seed: int
    judged: Judged | None  # None: it diverged


@dataclass(frozen=True)
class Watched:
    """One run, judged after each epoch by both estimates of the same weights."""

    batch_size: int
    seed: int
    curve: tuple[RungMetrics, ...]  # shorter than the run where that diverged

    @property
    def running_errors(self) -> tuple[float, ...]:
        """Validation error by the running averages, epoch by epoch."""
        return tuple(1.0 - one.val_accuracy_running_stats for one in self.curve)

    @property
    def precise_errors(self) -> tuple[float, ...]:
        """Validation error by exact population statistics."""
        return tuple(1.0 - one.val_accuracy for one in self.curve)


@dataclass(frozen=True)
class BatchStats:
    """What was trained, on what, and how it was judged."""

    request: BatchStatsRequest
    swept: tuple[Swept, ...]
    watched: tuple[Watched, ...]
    checksum: str  # of the data
    train_images: int
    validation_images: int
    device: str
    threads: int
    seconds: float
    versions: dict[str, str]
    revision: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        about = {name: value for name, value in vars(self).items() if name not in _PARTS}
        swept = [
            {"nbs": one.nbs, "seed": one.seed}
            | {"judged": None if one.judged is None else one.judged.as_dict()}
            for one in self.swept
        ]
        watched = [
            {"batch_size": one.batch_size, "seed": one.seed}
            | {"running_errors": one.running_errors, "precise_errors": one.precise_errors}
            | {"statistics_lag": [metrics.statistics_lag for metrics in one.curve]}
            for one in self.watched
        ]
        return {"request": asdict(self.request), **about, "swept": swept, "watched": watched}


_PARTS = ("request", "swept", "watched")


def trained(request: BatchStatsRequest, settings: Settings, say: Say) -> BatchStats:
    """Train all that `request` asks for; `say` hears of each run. Raises InputError."""
    request.check()
    device = device_of(request.device)
    data = _data(request, settings)
    request.check_data(data)
    began_s = time.perf_counter()
    swept = tuple(_sweep(request, data, device, say))
    watched = tuple(_watch(request, data, device, say))
    return BatchStats(
        request,
        swept,
        watched,
        data.checksum,
        len(data.train),
        len(data.validation),
        device_label(device),
        torch.get_num_threads(),
        time.perf_counter() - began_s,
        versions(),
        revision(),
    )


def _data(request: BatchStatsRequest, settings: Settings) -> SearchData:
    data_dir.prepare(settings.data_dir)
    source = dataset(request.dataset, settings.data_dir, DataOptions(request.image_size))
    data = load_search_data(source).limited(request.train_images)
    count, most = request.validation_images, len(data.validation)
    if count is None:
        return data
    if not 1 <= count <= most:
        raise InputError(f"--validation-images {count} must lie between 1 and {most}")
    return replace(data, validation=data.validation.first(count))


def _sweep(
    request: BatchStatsRequest, data: SearchData, device: torch.device, say: Say
) -> Iterator[Swept]:
    runs = [(nbs, seed) for seed in request.all_seeds for nbs in request.nbs]
    for number, (nbs, seed) in enumerate(runs, 1):
        began_s = time.perf_counter()
        config = request.config(data, request.sgd_batch, nbs, seed)
        judged = judge(config, data, device, request.frozen_epochs)
        took_s = time.perf_counter() - began_s
        about = f"run {number} of {len(runs)}: NBS {nbs}, seed {seed}, {took_s:.0f} s"
        told = "diverged" if judged is None else _told(judged)
        if judged is not None and request.freeze_last and judged.frozen is None:
            told += ", diverged with BatchNorm frozen"
        say(f"{about}: {told}")
        yield Swept(nbs, seed, judged)


def _told(judged: Judged) -> str:
    three = judged.three
    parts = {
        "training": three.train_batch,
        "validation": three.val_batch,
        "population": three.val_population,
        "running": judged.running,
        "frozen": judged.frozen,
    }
    errors = [f"{name} {1.0 - one.accuracy:.2%}" for name, one in parts.items() if one is not None]
    return f"errors {', '.join(errors)}"


def _watch(
    request: BatchStatsRequest, data: SearchData, device: torch.device, say: Say
) -> Iterator[Watched]:
    for seed in request.all_seeds:
        for batch_size in request.curve_batches:
            run = start(request.config(data, batch_size, None, seed), data, device)
            curve = tuple(event for event in train(run) if isinstance(event, RungMetrics))
            found = Watched(batch_size, seed, curve)
            yield found
            say(f"batch {batch_size}, seed {seed}: {_ending(found, request.epochs)}")


def _ending(found: Watched, epochs: int) -> str:
    if len(found.curve) < epochs:
        return f"diverged after {counted(len(found.curve), 'epoch')}"
    running, precise = found.running_errors[-1], found.precise_errors[-1]
    return f"errors by running averages {running:.2%}, by PreciseBN {precise:.2%}"
