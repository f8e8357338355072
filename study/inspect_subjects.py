"""What is inspected: models found by what people call them, and images that suit them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import nn

from models.errors import InputError
from models.registry import Variant, variant
from models.switches import ImageShape
from objectives import card
from objectives.card import Card
from objectives.data import SearchData, load_search_data
from objectives.data_options import DataOptions
from objectives.datasets import SHAPES, dataset, shape_of
from objectives.images import Split
from objectives.recipe import recalibration_images
from study import data_dir
from study.errors import TrackingError, UnknownStudyError
from study.identity import StudyIdentity
from study.settings import Settings
from study.trained import RunPlace, is_file_name, is_run_id, tracker_at, trained_weights

USUAL_DATASET = "mnist"


@dataclass(frozen=True)
class Found:
    """A model that was asked for, before it is known which images it is to take."""

    target: str
    source: str  # for people
    trained: tuple[Card, nn.Module] | None  # None: `chosen`, still to be built
    chosen: Variant
    run: RunPlace | None = None
    study: StudyIdentity | None = None


@dataclass(frozen=True)
class Subject:
    """A model to inspect."""

    name: str  # short, and no other one's
    source: str  # for people
    model: nn.Module
    card: Card | None  # None: the weights are random
    run: RunPlace | None  # where it is recorded

    def split(self, images: Split) -> Split:
        """`images` as its training saw them."""
        if self.card is None:
            return images
        return self.card.split(images.images, images.labels)


@dataclass(frozen=True)
class Images:
    """The images of an inspection."""

    dataset: str
    shape: ImageShape
    validation: Split  # that are looked at
    population: Split  # of training, for BatchNorm's statistics

    def at_most(self, count: int) -> "Images":
        """The same with no more than `count` validation images."""
        return replace(self, validation=self.validation.first(count))


def find(target: str, settings: Settings, stack: ExitStack) -> Found:
    """The model that `target` names; what it needs stays open as long as `stack`.

    A file, an MLflow run, a registered model or a study, in this order. Raises InputError.
    """
    model_error = None
    if not (is_file_name(target) or is_run_id(target)):
        try:
            return Found(target, "", None, variant(target))
        except InputError as error:
            model_error = error
    try:
        weights = stack.enter_context(trained_weights(target, settings))
    except UnknownStudyError as error:
        hints = [str(one) for one in (error, model_error) if "did you mean" in str(one)]
        raise InputError(
            " ".join(hints)
            or f"no study and no model is called '{target}'; see 'bnvit-study studies' and "
            "'bnvit-study models --all'"
        ) from error
    told, model = card.load(weights.path)
    return Found(
        target, weights.source, (told, model), variant(told.model), weights.run, weights.study
    )


def images_for(
    found: Sequence[Found],
    named: str | None,
    size: int | None,
    count: int | None,
    settings: Settings,
) -> Images:
    """The first `count` validation images of the data set `named`, or of the one that suits.

    Raises InputError where the models do not take the same images, or others than these.
    """
    wanted = _wanted(found)
    name, options = named, DataOptions(size)
    if name is None:
        name, usual = _suitable(found, wanted, settings)
        options = usual if size is None else replace(usual, image_size=size)
    data_dir.prepare(settings.data_dir)
    data = load_search_data(dataset(name, settings.data_dir, options))
    if wanted is not None and wanted != data.shape:
        first = next(one for one in found if one.trained is not None)
        raise InputError(
            f"{first.target} takes images of {_shown(wanted)}, {name} has {_shown(data.shape)}; "
            "give another --dataset or --image-size"
        )
    validation = data.validation
    if count is not None:
        _check_count(count, data)
        validation = validation.first(count)
    population = data.train.first(recalibration_images(data.shape.size))
    return Images(name, data.shape, validation, population)


def subject(found: Found, name: str, shape: ImageShape, seed: int) -> Subject:
    """`found` ready to be inspected; random weights are drawn by `seed`."""
    if found.trained is not None:
        told, model = found.trained
        return Subject(name, found.source, model, told, found.run)
    torch.manual_seed(seed)
    source = f"randomly initialised with seed {seed}, not trained"
    return Subject(name, source, found.chosen.build(shape).eval(), None, None)


def names_of(found: Sequence[Found]) -> list[str]:
    """The models' names; with what they were called by where these are alike."""
    names = [one.chosen.name for one in found]
    if len(set(names)) == len(names):
        return names
    longer = [f"{one.chosen.name} ({one.target})" for one in found]
    return (
        longer if len(set(longer)) == len(longer) else [f"{n} {i}" for i, n in enumerate(names, 1)]
    )


def _wanted(found: Sequence[Found]) -> ImageShape | None:
    shapes = {one.target: one.trained[0].image for one in found if one.trained is not None}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{target} takes {_shown(shape)}" for target, shape in shapes.items())
        raise InputError(f"the two models take different images: {told}; compare models of one set")
    return next(iter(shapes.values()), None)


def _suitable(
    found: Sequence[Found], wanted: ImageShape | None, settings: Settings
) -> tuple[str, DataOptions]:
    """The data set that a model was trained on, as far as that is known, and how it is read."""
    if wanted is None:
        return USUAL_DATASET, DataOptions()
    for one in found:
        if one.study is not None:
            return one.study.dataset, one.study.data_options
    name = next((name for one in found if (name := _recorded(one)) is not None), None)
    if name is None:
        alike = [(n, s) for n, s in SHAPES.items() if replace(s, size=wanted.size) == wanted]
        if not alike:
            raise InputError(
                f"no published data set has images of {_shown(wanted)}; say which with --dataset"
            )
        name = min(alike, key=lambda pair: pair[1].size != wanted.size)[0]
    is_as_it_is = shape_of(name, settings.data_dir, DataOptions()) == wanted
    return name, DataOptions() if is_as_it_is else DataOptions(wanted.size)


def _recorded(found: Found) -> str | None:
    if found.run is None:
        return None
    try:
        with tracker_at(found.run) as tracker:
            return tracker.dataset(found.run.run_id)
    except TrackingError as error:
        raise InputError(f"run {found.run.run_id} cannot be read ({error})") from error


def _check_count(count: int, data: SearchData) -> None:
    if not 1 <= count <= len(data.validation):
        raise InputError(
            f"--images {count} must lie between 1 and {len(data.validation)}, the size of the "
            "validation split"
        )


def _shown(shape: ImageShape) -> str:
    return f"{shape.channels}×{shape.size}×{shape.size} in {shape.classes} classes"
