"""What `measure` does: races of models at every task, as values, and as lines for people."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from models.errors import InputError
from models.registry import variant
from models.switches import Switches
from objectives.contenders import Entrant, Task, Work, check_equal, contenders, entrant, inequality
from objectives.data import SearchData, load_search_data
from objectives.data_options import DataOptions
from objectives.datasets import dataset
from objectives.execution import FAST, PLAIN, Execution
from objectives.hardware import device_label
from objectives.intervals import Interval
from objectives.precision import Precision, check_precision
from objectives.speed import Goal, Race, gain, race
from objectives.turns import seconds
from study.environment import device_of, revision, versions
from study.settings import Settings

WORKS: tuple[Work, ...] = ("train", "eval")
LOADED_BATCHES = 50  # whose median is the time of data loading


@dataclass(frozen=True)
class MeasureRequest:
    """What is to be measured; the first model is what the others are compared with."""

    models: tuple[str, ...]
    switches: Switches | None = None
    dataset: str = "mnist"
    image_size: int | None = None
    batch_sizes: tuple[int, ...] = (100,)
    works: tuple[Work, ...] = WORKS
    precision: Precision = "float32"
    plain: bool = False  # operation by operation, as the models are written
    half_width: float = 0.01
    limit_s: float = 120.0  # of one race
    device: str = "auto"
    threads: int | None = None  # None: as many as torch takes
    allow_unequal: bool = False

    def check(self) -> None:
        """Raise InputError for what is wrong whatever the data."""
        if len(set(self.models)) < len(self.models):
            raise InputError("a model is named twice; name each once")
        if not 0.0 < self.half_width < 1.0:
            raise InputError(f"--within {self.half_width:g} must lie between 0 and 1")
        if self.threads is not None and not 1 <= self.threads <= (os.cpu_count() or 1):
            raise InputError(f"--threads {self.threads} must be from 1 to {os.cpu_count()}")
        if min(self.batch_sizes) < 2:
            raise InputError("--batch-size must be 2 or more, as BatchNorm needs two images")
        check_precision(self.precision)


@dataclass(frozen=True)
class TaskSpeeds:
    """A race at one task, and how long its batches took to gather."""

    work: Work
    batch_size: int
    race: Race
    loading_s: float | None  # of one batch, no part of the timings; None: a part of them


@dataclass(frozen=True)
class Speeds:
    """All that was measured, and on what."""

    models: tuple[str, ...]
    tasks: tuple[TaskSpeeds, ...]
    unequal: str  # in what the models' work differs; empty: in nothing
    half_width: float  # that was aimed at
    family: int  # ratios whose intervals hold together
    dataset: str
    precision: Precision
    execution: str
    device: str
    threads: int
    cores: tuple[int, ...]  # that the process may use
    at: str
    versions: dict[str, str]
    revision: str

    def ratio(self, task: TaskSpeeds, name: str) -> Interval:
        """How often faster `name` is than the first model at `task`."""
        return task.race.ratio(name, self.family)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, with each ratio and gain."""
        plain = asdict(self)
        for told, task in zip(plain["tasks"], self.tasks, strict=True):
            told["trouble"] = task.race.trouble
            told["ratios"] = {
                timing.name: {
                    "ratio": asdict(ratio := self.ratio(task, timing.name)),
                    "gain": asdict(gain(ratio)),
                    "verdict": "unreliable" if task.race.trouble else verdict(ratio),
                }
                for timing in task.race.timings[1:]
            }
        return plain


def measure(request: MeasureRequest, settings: Settings, say: Callable[[str], None]) -> Speeds:
    """Measure what is asked for; `say` is told what takes time. Raises InputError."""
    request.check()
    device = device_of(request.device)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    torch.set_flush_denormal(True)
    source = dataset(request.dataset, settings.data_dir, DataOptions(request.image_size))
    data = load_search_data(source).to(device)
    entrants = [entrant(variant(name), request.switches, data) for name in request.models]
    if not request.allow_unequal:
        check_equal(entrants)
    execution = PLAIN if request.plain else FAST
    tasks = []
    for task in _tasks(request, execution, data, device):
        say(f"{task.work}, batches of {task.batch_size}: {', '.join(request.models)}")
        tasks.append(_measured(task, entrants, request, settings))
    return speeds_of(entrants, tasks, request, str(execution), device_label(device))


def speeds_of(
    entrants: Sequence[Entrant],
    tasks: Sequence[TaskSpeeds],
    request: MeasureRequest,
    execution: str,
    device: str,
) -> Speeds:
    """Races that were run, with all that is told beside them."""
    ratios = sum(len(task.race.timings) - 1 for task in tasks)
    return Speeds(
        models=tuple(each.name for each in entrants),
        tasks=tuple(tasks),
        unequal=inequality(entrants),
        half_width=request.half_width,
        family=max(ratios, 1),
        dataset=request.dataset,
        precision=request.precision,
        execution=execution,
        device=device,
        threads=torch.get_num_threads(),
        cores=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        revision=revision(),
    )


def parse_works(text: str) -> tuple[Work, ...]:
    """What is measured, from the text of --work; raises InputError."""
    if text != "both" and text not in WORKS:
        raise InputError(f"--work {text} must be {', '.join(WORKS)} or both")
    return tuple(work for work in WORKS if text in (work, "both"))


def verdict(ratio: Interval) -> str:
    """What a ratio of times shows, in words."""
    if ratio.contains(1.0):
        return "no difference shown"
    return "faster" if ratio.estimate > 1.0 else "slower"


def _tasks(
    request: MeasureRequest, execution: Execution, data: SearchData, device: torch.device
) -> Iterator[Task]:
    for batch_size in request.batch_sizes:
        if batch_size > len(data.train):
            raise InputError(
                f"--batch-size {batch_size} exceeds the {len(data.train)} training images"
            )
        for work in request.works:
            yield Task(work, batch_size, request.precision, execution, data, device)


def _measured(
    task: Task, entrants: Sequence[Entrant], request: MeasureRequest, settings: Settings
) -> TaskSpeeds:
    memory = KernelMemory(settings.data_dir / "calibration.json", task.device)
    # Those of the other tasks are not known yet, but they are at most as many as here and folded.
    most = max(2 * len(entrants) - 1, 1) * len(request.batch_sizes) * len(request.works)
    goal = Goal(request.half_width, limit_s=request.limit_s, family=most)
    found = race(partial(contenders, entrants, task), task.device, goal, memory.best_s)
    memory.note(min(found.calibration.before_s, found.calibration.after_s))
    return TaskSpeeds(task.work, task.batch_size, found, _loading_s(task))


def _loading_s(task: Task) -> float:
    """Median seconds that a batch takes to be gathered and brought to the device."""
    source = task.batches()
    return median(seconds(lambda: next(source), task.device) for _ in range(LOADED_BATCHES))


class KernelMemory:
    """The calibration kernel's best time on this device with so many threads, kept on disk."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path = path
        version = torch.__version__
        self.key = f"{device_label(device)}, {torch.get_num_threads()} threads, torch {version}"

    @property
    def best_s(self) -> float | None:
        """None: not known."""
        return self._read().get(self.key)

    def note(self, kernel_s: float) -> None:
        """Keep `kernel_s` if it is the best."""
        known = self._read()
        known[self.key] = min(kernel_s, known.get(self.key, kernel_s))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(known, indent=2))

    def _read(self) -> dict[str, float]:
        try:
            return dict(json.loads(self.path.read_text()))
        except (OSError, ValueError):
            return {}
