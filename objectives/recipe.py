"""Every number that a training run needs, with units in the names."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from models.errors import InputError
from models.switches import Switches
from objectives.precision import Precision
from objectives.recipes import Recipe

REDUCTION_FACTOR = 4  # between rungs; also successive halving's η
RUNGS_PER_EPOCH = 8  # the first rung is an eighth of an epoch
PRECISION: Precision = "float32"
RECALIBRATION_IMAGES = 2_000
RECALIBRATION_PIXELS = RECALIBRATION_IMAGES * 64**2


@dataclass(frozen=True)
class InitialWeights:
    """Trained weights that a run begins with."""

    source: str  # a file, or timm:NAME
    checksum: str | None = None  # of the numbers; None: not known
    convert: bool = False  # they are a LayerNorm model's, to be made a BatchNorm one's
    new_head: bool = False  # the classifier starts anew


@dataclass(frozen=True)
class TrainConfig:
    """One configuration: the same config, device and threads give the same numbers on CPU."""

    model: str
    switches: Switches
    dataset: str
    lr: float
    batch_size: int  # images per optimiser step
    rungs: tuple[int, ...]  # images seen at each evaluation; the last ends the run
    train_images: int  # images in one epoch
    seed: int  # of the weights, the data order and dropout
    initial: InitialWeights | None = None  # None: random weights
    recipe: Recipe = field(default_factory=Recipe)
    precision: Precision = PRECISION
    recalibration_images: int = RECALIBRATION_IMAGES  # behind recalibrated BN statistics
    evaluation_batch_size: int = 250
    target: float | None = None  # validation accuracy whose time and epochs are noted
    teacher_checksum: str | None = None  # of the recipe's teacher; None: not known

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return -(-self.rungs[-1] // self.batch_size)

    @property
    def full_lr(self) -> float:
        """The learning rate that is trained with, once warm: scaled by the batch where asked."""
        scale = 1.0 if self.recipe.lr_batch is None else self.batch_size / self.recipe.lr_batch
        return self.lr * scale

    @property
    def micro_batch(self) -> int:
        """Images of one forward pass, at most."""
        return -(-self.batch_size // self.recipe.accumulate)

    @property
    def normalisation_batch(self) -> int:
        """Images over which BatchNorm takes its statistics in training, at most."""
        return min(self.recipe.nbs or self.micro_batch, self.micro_batch)

    @property
    def frozen_from(self) -> float:
        """Images seen after which BatchNorm keeps its statistics; infinite: never."""
        last = self.recipe.freeze_bn * self.train_images
        return self.rungs[-1] - last if last else math.inf

    @property
    def initialisation(self) -> str | None:
        """What it begins with: runs of one model with the same here begin with equal weights.

        None: not known.
        """
        if self.initial is None:
            drawn = "" if self.recipe.init == "usual" else f", {self.recipe.init}"
            return f"random weights of seed {self.seed}{drawn}"
        if self.initial.checksum is None:
            return None
        converted = ", converted" if self.initial.convert else ""
        head = f", a head of seed {self.seed}" if self.initial.new_head else ""
        return f"weights {self.initial.checksum}{converted}{head}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def recalibration_images(image_size: int) -> int:
    """How many training images recalibration takes, in one pass, for images of that size in pixels.

    2,000 up to 64 pixels, 163 at 224: as many pixels, so that the pass fits where training does.
    """
    return min(RECALIBRATION_IMAGES, max(RECALIBRATION_PIXELS // image_size**2, 100))


def search_rungs(train_images: int, epochs: int) -> tuple[int, ...]:
    """Rungs of a search: an eighth of an epoch, growing by a factor of 4, then the end."""
    end = train_images * epochs
    rungs = []
    eighths = 1
    while (rung := max(train_images * eighths // RUNGS_PER_EPOCH, eighths)) < end:
        rungs.append(rung)
        eighths *= REDUCTION_FACTOR
    return (*rungs, end)


def epoch_rungs(train_images: int, epochs: int) -> tuple[int, ...]:
    """Rungs of a long run: the end of every epoch."""
    if epochs < 1:
        raise InputError(f"epochs {epochs} must be at least 1")
    return tuple(train_images * epoch for epoch in range(1, epochs + 1))
