"""A trained model that another learns from: where it comes from, and whether it fits the data."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import InputError
from models.grammar import TIMM
from models.switches import ImageShape
from models.weights import pretrained, weights_checksum
from objectives.card import load


@dataclass(frozen=True)
class Teacher:
    """A model in evaluation mode, none of whose numbers ever changes, and the images it takes."""

    model: nn.Module
    checksum: str  # of its numbers
    classes: int
    channels: int
    size: int | None  # pixels along each side; None: any
    mean: tuple[float, ...] | None  # of each channel in [0, 1]; None: pixels stay there
    std: tuple[float, ...] | None

    def check(self, image: ImageShape) -> None:
        """Raise InputError where it is not for such images."""
        for what, mine, theirs in (
            ("classes", self.classes, image.classes),
            ("channels", self.channels, image.channels),
            ("pixels along each side", self.size or image.size, image.size),
        ):
            if mine != theirs:
                raise InputError(
                    f"the teacher is for {mine} {what}, the data have {theirs}; give a teacher of "
                    "the same classes, channels and image size"
                )


def teacher_source(text: str) -> str:
    """Where a teacher is found from any folder: timm:NAME, or a file's whole path."""
    return text if text.startswith(TIMM) else str(Path(text).expanduser().absolute())


def load_teacher(source: str, checksum: str | None = None) -> Teacher:
    """The teacher that `source` names: a file with a card, a checkpoint of ours, or timm:NAME.

    Draws nothing from torch's random state. Raises InputError where there is none, or not that
    of `checksum`.
    """
    with torch.random.fork_rng(devices=[]):  # random weights, before they are loaded
        found = _from_timm(source) if source.startswith(TIMM) else _from_file(Path(source))
    if checksum is not None and found.checksum != checksum:
        raise InputError(
            f"{source} is not the teacher that the study was begun with; put the same file there"
        )
    found.model.eval().requires_grad_(False)
    return found


@lru_cache(maxsize=1)
def kept_teacher(source: str, checksum: str | None) -> Teacher:
    """The teacher of `load_teacher`, read once for all trials of a process."""
    return load_teacher(source, checksum)


def _from_file(path: Path) -> Teacher:
    card, model = load(path)
    image = card.image
    return Teacher(
        model,
        weights_checksum(model.state_dict()),
        image.classes,
        image.channels,
        image.size,
        card.mean,
        card.std,
    )


def _from_timm(source: str) -> Teacher:
    model: Any = pretrained(source.removeprefix(TIMM))
    told = model.pretrained_cfg
    channels, size, _ = told["input_size"]
    return Teacher(
        model,
        weights_checksum(model.state_dict()),
        model.num_classes,
        channels,
        size if told.get("fixed_input_size") else None,
        tuple(told["mean"]),
        tuple(told["std"]),
    )
