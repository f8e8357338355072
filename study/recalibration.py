"""Trained weights given new BatchNorm statistics, judged before and after, and written."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from models.errors import InputError
from models.norms import batch_norms
from objectives.card import Card
from objectives.data import load_search_data
from objectives.data_options import DataOptions, short_name
from objectives.datasets import dataset
from objectives.domains import Domain, across_domains
from objectives.evaluation import evaluate
from objectives.execution import autocast
from objectives.images import CPU, Split
from objectives.population import METHODS, Method, Population, estimate_on, on_population
from objectives.recipe import recalibration_images
from objectives.three_way import Leakage, ThreeWay, leakage, three_way
from study.inspect_images import Images, images_for
from study.inspect_subjects import find
from study.settings import Settings
from study.tabular import Tabular
from study.weights_file import check_weights_file, write_weights


@dataclass(frozen=True)
class Asked:
    """What is to be recalibrated, and how."""

    target: str
    method: str  # whose statistics are written; checked by `check`
    images: int | None = None  # to estimate on; None: 2,000, fewer above 64 pixels
    batch_size: int = 250
    dataset: str | None = None  # None: what the model was trained on
    image_size: int | None = None  # pixels
    domains: tuple[str, ...] = ()  # other data sets
    output: Path | None = None

    @property
    def path(self) -> Path:
        """The file to write."""
        stem = re.sub(r"[^\w.-]", "-", Path(self.target).stem)
        return self.output or Path(f"{stem}-recalibrated.safetensors")

    def check(self) -> None:
        """Raise InputError for what is wrong whatever the model is."""
        if self.method not in METHODS:
            raise InputError(f"unknown --method '{self.method}'; write {' or '.join(METHODS)}")
        if self.images is not None and self.images < 2:
            raise InputError(f"--images {self.images} must be at least 2")
        check_weights_file(self.path)
        if self.path.exists() and Path(self.target).exists() and self.path.samefile(self.target):
            raise InputError(f"{self.path} would replace what is recalibrated; give another -o")


@dataclass(frozen=True)
class Recalibrated:
    """What was found and written."""

    lines: tuple[str, ...]
    tables: tuple[Tabular, ...]
    path: Path


def recalibrated_file(asked: Asked, settings: Settings) -> Recalibrated:
    """Estimate statistics anew, judge the model by each, and write it with those asked for.

    Raises InputError for what cannot be found, has no BatchNorm or does not go together.
    """
    asked.check()
    with ExitStack() as stack:
        found = find(asked.target, settings, stack)
        if found.trained is None:
            raise InputError(
                f"'{asked.target}' is a model of random weights; name a study, a run or a file"
            )
        told, model = found.trained
        _check_model(asked.target, told, model)
        images = images_for([found], asked.dataset, asked.image_size, None, settings, asked.images)
        if len(images.population) < (asked.images or 0):
            raise InputError(
                f"--images {asked.images} must lie between 2 and {len(images.population)}, the "
                "size of the train split"
            )
        own = _domain(told, images.population, images.validation)
        others = {name: _other(asked, name, told, settings) for name in asked.domains}
        with autocast(CPU, told.precision):  # as it was trained and judged
            estimates = {m: estimate_on(model, own.train, m, asked.batch_size) for m in METHODS}
            tables = [_judged(asked, model, own, estimates)]
            if others:
                tables.append(_across(asked, model, {images.dataset: own, **others}))
        _write(asked, told, model, estimates)
    lines = _lines(asked, told, found.source, images)
    return Recalibrated(tuple(lines), tuple(tables), asked.path)


def _check_model(target: str, told: Card, model: nn.Module) -> None:
    if batch_norms(model):
        return
    if told.folded:
        raise InputError(f"{target} is folded: no BatchNorm is left in it; name what was exported")
    raise InputError(
        f"{target} is a {told.model}, which has no BatchNorm that keeps statistics: there is "
        "nothing to recalibrate"
    )


def _domain(told: Card, train: Split, validation: Split) -> Domain:
    return Domain(*(told.split(split.images, split.labels) for split in (train, validation)))


def _other(asked: Asked, name: str, told: Card, settings: Settings) -> Domain:
    data = load_search_data(dataset(name, settings.data_dir, DataOptions(asked.image_size)))
    if data.shape != told.image:
        raise InputError(
            f"--domains {name} has other images or classes than {asked.target} takes; domains "
            "must share both"
        )
    count = asked.images or recalibration_images(told.image.size)
    return _domain(told, data.train.first(count), data.validation)


def _judged(
    asked: Asked, model: nn.Module, own: Domain, estimates: dict[Method, Population]
) -> Tabular:
    size, nbs = asked.batch_size, min(asked.batch_size, len(own.validation), len(own.train))
    before = evaluate(model, own.validation, size)
    after = {}
    for method, statistics in estimates.items():
        with on_population(model, statistics):
            after[method] = evaluate(model, own.validation, size)
    with on_population(model, _asked_for(asked, estimates)):
        ways = three_way(model, own.train, own.validation, nbs, size)
        leaks = leakage(model, own.validation, nbs, size)
    rows = [("as they were", _percent(before.accuracy), f"{before.loss:.4f}")]
    rows += [(name, _percent(one.accuracy), f"{one.loss:.4f}") for name, one in after.items()]
    rows += _by_batches(nbs, ways, leaks)
    return Tabular(
        "accuracy",
        "Accuracy on validation images by BatchNorm's statistics",
        ("statistics", "accuracy", "cross-entropy"),
        tuple(rows),
        notes=(_leak_note(leaks),),
    )


def _by_batches(nbs: int, ways: ThreeWay, leaks: Leakage) -> Iterator[tuple[str, str, str]]:
    of_batches = f"mini-batches of {nbs}"
    on_train, on_validation = ways.train_batch, ways.val_batch
    yield of_batches, _percent(on_validation.accuracy), f"{on_validation.loss:.4f}"
    yield f"{of_batches}, sorted by class", _percent(leaks.batch_sorted), "–"
    yield f"{of_batches}, training images", _percent(on_train.accuracy), f"{on_train.loss:.4f}"


def _leak_note(leaks: Leakage) -> str:
    return (
        f"leakage: sorting the images by class changes the accuracy by {100 * leaks.jump:+.2f} "
        f"points by mini-batch statistics, by {100 * leaks.population_jump:+.2f} by population "
        "statistics"
    )


def _across(asked: Asked, model: nn.Module, domains: dict[str, Domain]) -> Tabular:
    method: Method = "one-pass" if asked.method == "one-pass" else "exact"
    names = {name: short_name(name) for name in domains}
    if len(set(names.values())) < len(names):
        names = {name: name for name in domains}
    found = across_domains(model, domains, method, asked.batch_size)
    return Tabular(
        "domains",
        f"Validation accuracy by the domain whose statistics are used ({method})",
        ("statistics of", *(f"on {name}" for name in names.values())),
        tuple(
            (names[source], *(_percent(found[source, target].accuracy) for target in domains))
            for source in domains
        ),
    )


def _write(asked: Asked, told: Card, model: nn.Module, estimates: dict[Method, Population]) -> None:
    with on_population(model, _asked_for(asked, estimates)):
        write_weights(model.state_dict(), told, asked.path)


def _asked_for(asked: Asked, estimates: dict[Method, Population]) -> Population:
    return next(one for method, one in estimates.items() if method == asked.method)


def _lines(asked: Asked, told: Card, source: str, images: Images) -> Iterator[str]:
    yield f"model:   {told.model}, {source}"
    yield (
        f"images:  {len(images.population):,} training images of {images.dataset} in batches of "
        f"{asked.batch_size} for the statistics, {len(images.validation):,} validation images"
    )
    yield f"method:  {asked.method}"


def _percent(share: float) -> str:
    return f"{share:.2%}"
