"""The races of a reproduction: each kept in a file under its name, and found again."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.errors import InputError
from models.registry import variant
from models.switches import Switches
from objectives.article_contenders import ONE_BLOCK, article_contenders, evaluation_images
from objectives.article_loop import TEST_BATCH_SIZE
from objectives.contenders import Work, entrant
from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset
from objectives.denormals import Slowdown, slowdown
from objectives.hardware import device_label
from objectives.recipe import TrainConfig
from objectives.speed import Goal, race
from study.article_claims import BATCH_SIZE, LRS, MODELS
from study.blog_claims import BACKBONES, IMAGE, SUFFIX
from study.claims_counts import PUBLISHED_BATCH
from study.claims_speed import BN_MODELS
from study.environment import device_of, versions
from study.reproduction import CPU_BATCH, Reproduction
from study.settings import Settings
from study.speeds import MeasureRequest, Speeds, TaskSpeeds, measure, speeds_of
from study.speeds_file import race_from, speeds_from

Say = Callable[[str], None]

ONE_BLOCKS = tuple(name + ONE_BLOCK for name in BN_MODELS)
_SEED = 1  # of the runs whose denormals are looked for
_FOLDER = "reproduce"


class Races:
    """The races of one reproduction, on this device."""

    def __init__(self, asked: Reproduction, settings: Settings, say: Say) -> None:
        self.asked = asked
        self.settings = settings
        self.say = say
        self.device = device_of(asked.device)

    def article(self, run: bool) -> Speeds | None:
        """The article's own loop, models with all blocks and with one; None: not measured."""
        models = (*MODELS, *ONE_BLOCKS)
        request = self._request(models)
        return self._speeds("article-loop", request, run, self._measured_article)

    def own(self, run: bool) -> tuple[Speeds | None, Speeds | None]:
        """Our steps alone: all blocks, and one in the BatchNorm models."""
        all_blocks = self._request(MODELS)
        one_block = self._request((MODELS[0], *ONE_BLOCKS))
        return (
            self._speeds("steps", all_blocks, run, self._measured),
            self._speeds("steps-one-block", one_block, run, self._measured),
        )

    def inference(self, run: bool) -> tuple[Speeds, ...]:
        """The blog's backbones against BatchNorm, weight norm and ReLU6; those measured."""
        found = []
        for backbone in BACKBONES:
            batch_size = self.inference_batch
            images = max(2 * batch_size, 16)
            shape = f"{IMAGE.channels}x{IMAGE.size}x{IMAGE.classes}"
            request = replace(
                self._request((backbone, backbone + SUFFIX)),
                switches=None,
                dataset=f"fake:{images}x{shape}",
                batch_sizes=(batch_size,),
                works=("eval",),
            )
            found.append(self._speeds(f"inference-{backbone}", request, run, self._measured))
        return tuple(speeds for speeds in found if speeds is not None)

    def slowdowns(self, run: bool) -> tuple[Slowdown, ...]:
        """Steps with denormals against steps without, of each model at each learning rate."""
        found = [self._slowdown(model, lr, run) for model in MODELS for lr in LRS]
        return tuple(each for each in found if each is not None)

    @property
    def inference_batch(self) -> int:
        """Images of a batch: as asked, else as published where a GPU takes them."""
        usual = CPU_BATCH if self.device.type == "cpu" else PUBLISHED_BATCH
        return self.asked.batch_size or usual

    def _request(self, models: tuple[str, ...]) -> MeasureRequest:
        return MeasureRequest(
            models=models,
            switches=self.asked.switches,
            dataset=self.asked.dataset,
            batch_sizes=(BATCH_SIZE,),
            limit_s=60 * self.asked.minutes,
            device=self.asked.device,
            allow_unequal=True,
        )

    def _speeds(
        self,
        name: str,
        request: MeasureRequest,
        run: bool,
        measured: Callable[[MeasureRequest], Speeds],
    ) -> Speeds | None:
        """What is kept of such a race; else, to `run` it, a new one."""
        key = {**asdict(request), "device": self._label}
        kept = self._recalled(name, key)
        if kept is not None:
            found = speeds_from(kept)
            if not run or not any(task.race.trouble for task in found.tasks):
                return found
        if not run:
            return None
        found = measured(request)
        self._keep(name, key, found.as_dict())
        return found

    def _measured(self, request: MeasureRequest) -> Speeds:
        return measure(request, self.settings, lambda line: self.say(f"measuring: {line}"))

    def _measured_article(self, request: MeasureRequest) -> Speeds:
        """The article's loop with its data loading; its models are its own, without switches."""
        data = self._data()  # its loop brings each batch to the device by itself
        entrants = [entrant(variant(name), None, data) for name in request.models]
        sizes: dict[Work, int] = {"train": BATCH_SIZE, "eval": evaluation_images(data)}
        family = (len(entrants) - 1) * len(sizes)
        goal = Goal(request.half_width, limit_s=request.limit_s, family=family)
        tasks = []
        for work, size in sizes.items():
            self.say(f"measuring: the article's loop, {work}, batches of {size}")
            build = partial(article_contenders, entrants, work, data, size, self.device)
            found = race(build, self.device, goal)
            tasks.append(TaskSpeeds(work, size, found, None))
        return speeds_of(entrants, tasks, request, "the article's loop", self._label)

    def _slowdown(self, model: str, lr: float, run: bool) -> Slowdown | None:
        name = f"denormals-{model}-{lr:g}"
        key = {
            "model": model,
            "lr": lr,
            "switches": repr(self.asked.switches),
            "dataset": self.asked.dataset,
            "train_images": self.asked.train_images,
            "epochs": self.asked.denormal_epochs,
            "minutes": self.asked.minutes,
            "device": device_label(torch.device("cpu")),
        }
        kept = self._recalled(name, key)
        if kept is not None:
            found = Slowdown(**{**kept, "race": race_from(kept["race"])})
            if not run or not found.race.trouble:
                return found
        if not run:
            return None
        self.say(f"measuring: denormals, {model} at lr {lr:g}, in one thread")
        found = self._slowed(model, lr, self.asked.switches)
        self._keep(name, key, asdict(found))
        return found

    def _slowed(self, model: str, lr: float, switches: Switches | None) -> Slowdown:
        data = self._data().limited(self.asked.train_images)
        images = len(data.train)
        steps = max(round(self.asked.denormal_epochs * images / BATCH_SIZE), 1)
        config = TrainConfig(
            model=model,
            switches=variant(model).resolved(switches, data.shape),
            dataset=self.asked.dataset,
            lr=lr,
            batch_size=BATCH_SIZE,
            rungs=(steps * BATCH_SIZE,),
            train_images=images,
            seed=_SEED,
        )
        family = len(MODELS) * len(LRS)
        return slowdown(config, data, steps, Goal(limit_s=60 * self.asked.minutes, family=family))

    def _data(self) -> SearchData:
        return load_search_data(dataset(self.asked.dataset, self.settings.data_dir))

    @property
    def _label(self) -> str:
        return device_label(self.device)

    def _path(self, name: str) -> Path:
        return self.settings.data_dir / _FOLDER / f"{self.asked.name}-{name}.json"

    def _recalled(self, name: str, key: dict[str, Any]) -> dict[str, Any] | None:
        """What is kept under a name, if it was asked for in the same way with the same torch."""
        try:
            kept = json.loads(self._path(name).read_text())
        except (OSError, ValueError):
            return None
        return dict(kept["told"]) if kept["key"] == _plain(key) else None

    def _keep(self, name: str, key: dict[str, Any], told: dict[str, Any]) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"key": _plain(key), "told": told}, indent=2) + "\n")


def check_loop(asked: Reproduction) -> None:
    """Raise InputError where a part cannot be what it was published as."""
    if asked.batch_size is not None and asked.source != "blog":
        raise InputError(
            f"--batch-size is of the blog's inference; the article's is {BATCH_SIZE}, and "
            f"{TEST_BATCH_SIZE:,} for tests"
        )


def _plain(key: dict[str, Any]) -> Any:
    """As JSON gives it back; with the torch that computes."""
    return json.loads(json.dumps({**key, "torch": versions()["torch"]}))
