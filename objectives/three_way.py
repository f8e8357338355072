"""A model judged by the statistics of mini-batches and by the population's.

Three ways separate what makes a BatchNorm model's error (Wu & Johnson 2021, arXiv 2105.07576,
section 4): on training images by batch statistics, with the noise that it was trained with; on
validation images by batch statistics, where the generalisation gap is added; and by population
statistics, where training and testing are no longer consistent.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.errors import InputError
from models.modes import modes_kept
from objectives.batch_stats import batch_statistics
from objectives.evaluation import Evaluation, summed
from objectives.feed import feed
from objectives.images import Split
from objectives.order import mixed_seed

_ORDER_SEED = 7  # of the shuffled order in which leakage is looked for


@dataclass(frozen=True)
class ThreeWay:
    """A model by batch statistics and by those that its norms hold."""

    train_batch: Evaluation
    val_batch: Evaluation
    val_population: Evaluation


@dataclass(frozen=True)
class Leakage:
    """Accuracies with images shuffled, and sorted, as by class: most batches then have one.

    Where a prediction depends on the other images of a batch, the two differ by batch statistics:
    what else is in the batch leaks into it. By population statistics they are the same.

    Source: Wu & Johnson 2021, arXiv 2105.07576, section 6.
    """

    batch_shuffled: float
    batch_sorted: float
    population_shuffled: float
    population_sorted: float

    @property
    def jump(self) -> float:
        """What sorting changes by batch statistics."""
        return self.batch_sorted - self.batch_shuffled

    @property
    def population_jump(self) -> float:
        """What it changes by population statistics."""
        return self.population_sorted - self.population_shuffled


def three_way(
    model: nn.Module, train: Split, validation: Split, nbs: int, batch_size: int
) -> ThreeWay:
    """Judge `model` by the statistics of `nbs` images at a time, and by those its norms hold."""
    return ThreeWay(
        evaluate_by_batch(model, train, nbs, batch_size),
        evaluate_by_batch(model, validation, nbs, batch_size),
        evaluate_in(model, validation, torch.arange(len(validation)), batch_size),
    )


def leakage(
    model: nn.Module, split: Split, nbs: int, batch_size: int, order: Tensor | None = None
) -> Leakage:
    """Compare two orders of `split`, by the statistics of `nbs` images and by the norms' own.

    `order` is the one beside the shuffled; None: by class.
    """
    generator = torch.Generator().manual_seed(mixed_seed(_ORDER_SEED, len(split)))
    shuffled = torch.randperm(len(split), generator=generator)
    if order is None:
        order = split.labels.cpu().argsort(stable=True)
    return Leakage(
        evaluate_by_batch(model, split, nbs, batch_size, shuffled).accuracy,
        evaluate_by_batch(model, split, nbs, batch_size, order).accuracy,
        evaluate_in(model, split, shuffled, batch_size).accuracy,
        evaluate_in(model, split, order, batch_size).accuracy,
    )


@torch.inference_mode()
def evaluate_by_batch(
    model: nn.Module, split: Split, nbs: int, batch_size: int, order: Tensor | None = None
) -> Evaluation:
    """Evaluate by the batch statistics of `nbs` images at a time, in `order` or as they come.

    Each image counts once. The last group is filled up with images from the beginning, which do
    not count again. Raises InputError where there are fewer than `nbs` images.
    """
    if not 2 <= nbs <= len(split):
        raise InputError(
            f"batch statistics of {nbs} images need as many, and at least two: there are "
            f"{len(split)} to evaluate on"
        )
    order = torch.arange(len(split)) if order is None else order
    filled = torch.cat((order, order[: -len(split) % nbs]))
    at_once = max(batch_size // nbs, 1) * nbs
    with batch_statistics(model, nbs):
        answers = _answers(model, split, filled, at_once)
        return summed(_first(answers, len(split)))


@torch.inference_mode()
def evaluate_in(model: nn.Module, split: Split, order: Tensor, batch_size: int) -> Evaluation:
    """Evaluate by the statistics that the norms hold, the images in `order`."""
    with modes_kept(model):
        model.eval()
        return summed(_answers(model, split, order, batch_size))


def _answers(
    model: nn.Module, split: Split, order: Tensor, at_once: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for pixels, labels in feed(split, order.to(split.images.device).split(at_once)):
        yield model(pixels), labels


def _first(answers: Iterator[tuple[Tensor, Tensor]], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    for logits, labels in answers:
        yield logits[:count], labels[:count]
        count -= len(labels[:count])
