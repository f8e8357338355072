"""Models to inspect, found by what people call them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from models.errors import InputError
from models.registry import Variant, variant
from models.switches import ImageShape
from objectives import card
from objectives.card import Card
from objectives.images import Split
from study.errors import UnknownStudyError
from study.identity import StudyIdentity
from study.settings import Settings
from study.trained import RunPlace, is_file_name, is_run_id, trained_weights


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
    saw_validation: bool = False  # it was trained on these images, too, as far as is known

    def split(self, images: Split) -> Split:
        """`images` as its training saw them."""
        if self.card is None:
            return images
        return self.card.split(images.images, images.labels)


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


def subject(found: Found, name: str, shape: ImageShape, seed: int) -> Subject:
    """`found` ready to be inspected; random weights are drawn by `seed`."""
    if found.trained is not None:
        told, model = found.trained
        saw_validation = found.study is not None and found.study.is_joined
        return Subject(name, found.source, model, told, found.run, saw_validation)
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
