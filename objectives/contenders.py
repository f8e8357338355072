"""What a race is between: models that train, or that evaluate, on a batch that lies ready."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from models.anatomy import anatomy
from models.errors import InputError
from models.fold import fold
from models.profile import Profile, profile
from models.registry import Variant
from models.switches import Switches
from models.vit import merge_attention
from objectives.data import SearchData
from objectives.execution import Execution, autocast
from objectives.feed import Batch, feed
from objectives.order import batches
from objectives.precision import Precision
from objectives.recipe import TrainConfig
from objectives.starting import start
from objectives.steps import PlainStep
from objectives.stretch import Contender

LR = 5e-4  # the article's lowest; what a step takes does not depend on it
SEED = 0
SAME_MACS = 0.01  # shares that count as equal

Work = Literal["train", "eval"]


@dataclass(frozen=True)
class Entrant:
    """A model that is to be measured."""

    variant: Variant
    switches: Switches
    profile: Profile

    @property
    def name(self) -> str:
        """The model's."""
        return self.variant.name


@dataclass(frozen=True)
class Task:
    """What all contenders of a race do."""

    work: Work
    batch_size: int
    precision: Precision
    execution: Execution
    data: SearchData  # on the device
    device: torch.device

    def batch(self) -> Batch:
        """The images and labels that are worked on, the same in each call."""
        return next(self.batches())

    def batches(self) -> Iterator[Batch]:
        """Batches of training images as training gets them."""
        train = self.data.train
        order = batches(len(train), self.batch_size, SEED, 0, train.images.device)
        return feed(train, order)


def entrant(chosen: Variant, switches: Switches | None, data: SearchData) -> Entrant:
    """A model, profiled by a forward pass; raises InputError where it cannot be built."""
    resolved = chosen.resolved(switches, data.shape)
    counted = profile(chosen.build_blank(data.shape, resolved), data.shape)
    return Entrant(chosen, resolved, counted)


def check_equal(entrants: Iterable[Entrant]) -> None:
    """Raise InputError where the models do not execute equally many blocks and multiply-adds."""
    if said := inequality(entrants):
        raise InputError(f"{said}; --allow-unequal compares them all the same, and says so")


def inequality(entrants: Iterable[Entrant]) -> str:
    """In what the models differ from the first, in words; empty where they are equal."""
    first, *others = entrants
    for other in others:
        if other.profile.blocks_executed != first.profile.blocks_executed:
            return (
                f"{other.name} executes {_blocks(other.profile)}, "
                f"{first.name} {_blocks(first.profile)}"
            )
        if abs(other.profile.macs / first.profile.macs - 1) > SAME_MACS:
            return (
                f"{other.name} takes {other.profile.macs / 1e9:.4g} GMACs for an image, "
                f"{first.name} {first.profile.macs / 1e9:.4g}"
            )
    return ""


def contenders(
    entrants: Iterable[Entrant], task: Task, is_reversed: bool = False
) -> list[Contender]:
    """All that take part: each model, and in evaluation each that folds in that form, too.

    Built one after another, or where `is_reversed` the last first.
    """
    makers = [maker for each in entrants for maker in _makers(each, task)]
    return [make() for make in (makers[::-1] if is_reversed else makers)]


def _makers(entrant: Entrant, task: Task) -> list[Callable[[], Contender]]:
    if task.work == "train":
        return [partial(_trained, entrant, task)]
    is_foldable = bool(entrant.profile.foldable_norms)
    forms = (False, True) if is_foldable else (False,)
    return [partial(_evaluated, entrant, is_folded, task) for is_folded in forms]


def _trained(entrant: Entrant, task: Task) -> Contender:
    """Training steps of the article's recipe."""
    config = TrainConfig(
        model=entrant.name,
        switches=entrant.switches,
        dataset="",
        lr=LR,
        batch_size=task.batch_size,
        rungs=(task.batch_size,),
        train_images=len(task.data.train),
        seed=SEED,
        precision=task.precision,
    )
    run = start(config, task.data, task.device, replace(task.execution, graphed=False))
    step = PlainStep(run.loss, run.optimizer)
    pixels, labels = task.batch()

    def held() -> int:
        states = [value for state in run.optimizer.state.values() for value in state.values()]
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        return _bytes([*states, *gradients]) + _bytes(_tensors(run.model))

    return _contender(entrant, entrant.name, lambda: step(pixels, labels), run.model, task, held)


def _evaluated(entrant: Entrant, is_folded: bool, task: Task) -> Contender:
    """Forward passes at evaluation, of the model as it is or folded."""
    torch.manual_seed(SEED)
    model = entrant.variant.build(task.data.shape, entrant.switches).to(task.device).eval()
    name = f"{entrant.name}, folded" if is_folded else entrant.name
    if is_folded:
        model = fold(model).model
    merge_attention(model, task.execution.merged)
    pixels, _ = task.batch()

    @torch.inference_mode()
    def call() -> Tensor:
        with autocast(task.device, task.precision):
            return model(pixels)

    return _contender(entrant, name, call, model, task, lambda: _bytes(_tensors(model)))


def _contender(
    entrant: Entrant,
    name: str,
    call: Callable[[], object],
    model: nn.Module,
    task: Task,
    held: Callable[[], int],
) -> Contender:
    blocks = tuple(model.get_submodule(path) for path in anatomy(model).blocks)
    return Contender(name, call, model, blocks, entrant.profile.macs, task.batch_size, held)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _bytes(values: Iterable[object]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def _blocks(counted: Profile) -> str:
    return f"{counted.blocks_executed} of {counted.blocks} blocks"
