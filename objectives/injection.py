"""An extreme value made larger at the entrance of a model: how far it carries."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.anatomy import Stream, anatomy
from models.errors import InputError
from objectives.feed import feed, in_order
from objectives.images import Split
from objectives.residual import StreamReader, change
from objectives.watching import watched


@dataclass(frozen=True)
class Injection:
    """What follows where one channel of the first block's input is multiplied by `factor`.

    Of the residual stream x and the logits, x' with it: ‖x' - x‖ / ‖x‖, means over tokens and
    images.
    """

    factor: float
    channel: int
    at_entry: float
    after_blocks: tuple[float, ...]  # in order of execution
    logits: float
    accuracy: float  # without it
    accuracy_injected: float
    same_answer: float  # share of the images that are put into the same class as without it


def check_factor(factor: float) -> None:
    """Raise InputError for a factor that cannot be multiplied by."""
    if not (math.isfinite(factor) and factor >= 0.0):
        raise InputError(f"--inject {factor:g} must be a number of at least 0, as 10")


@torch.no_grad()
def inject(
    model: nn.Module, split: Split, batch_size: int, channel: int, factor: float
) -> Injection:
    """Multiply `channel` at the entrance by `factor` and see what changes; in the modes as set."""
    streams = anatomy(model).streams
    readers = [StreamReader(stream) for stream in streams]
    watchers = [watcher for reader in readers for watcher in reader.watchers()]
    sums = torch.zeros(len(readers) + 1, dtype=torch.float64)
    tallies = torch.zeros(4, dtype=torch.float64)  # logits, hits, hits with it, same answers
    with watched(model, watchers):
        for pixels, labels in feed(split, in_order(len(split), batch_size)):
            plain = model(pixels)
            before = [readers[0].before, *(reader.after for reader in readers)]
            with _multiplied(model, streams[0], channel, factor):
                changed = model(pixels)
            after = [readers[0].before, *(reader.after for reader in readers)]
            sums += _changes(before, after)
            tallies += _tally(plain, changed, labels)
    entry, *by_depth = (sums / len(split)).tolist()
    logits, hits, hits_injected, same = (tallies / len(split)).tolist()
    return Injection(factor, channel, entry, tuple(by_depth), logits, hits, hits_injected, same)


@contextmanager
def _multiplied(model: nn.Module, first: Stream, channel: int, factor: float) -> Iterator[None]:
    def multiply(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        stream = args[first.argument].clone()
        stream[..., channel] *= factor
        return (*args[: first.argument], stream, *args[first.argument + 1 :])

    hook = model.get_submodule(first.block).register_forward_pre_hook(multiply)
    try:
        yield
    finally:
        hook.remove()


def _changes(before: list[Tensor], after: list[Tensor]) -> Tensor:
    """For each place, the means over tokens of the relative change, summed over images."""
    pairs = zip(before, after, strict=True)
    return torch.stack([change(x, y)[0].double().mean(dim=1).sum() for x, y in pairs])


def _tally(plain: Tensor, changed: Tensor, labels: Tensor) -> Tensor:
    answer, other = plain.argmax(1), changed.argmax(1)
    relative = change(plain[:, None], changed[:, None])[0].sum()
    counts = [(answer == labels).sum(), (other == labels).sum(), (answer == other).sum()]
    return torch.stack([relative.double(), *(count.double() for count in counts)])
