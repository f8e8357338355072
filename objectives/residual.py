"""What each block does to the residual stream: how much, and in which direction."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.anatomy import Stream
from objectives.watching import Watcher, tokens


@dataclass(frozen=True)
class Change:
    """What a branch does to the residual stream x; means over tokens and images."""

    relative: float  # ‖branch(x)‖ / ‖x‖
    cosine: float  # between x before and after


@dataclass(frozen=True)
class BlockChange:
    """What the two branches of a block do to the residual stream."""

    path: str
    attention: Change
    feed_forward: Change


class StreamReader:
    """Reads the residual stream of a block in a forward pass: `before`, `between` and `after`.

    (B, N, C) each. What a branch adds is a difference of these, so that scales and paths that are
    dropped, as in CaiT, are part of it.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.before = self.between = self.after = torch.empty(0)

    def watchers(self) -> list[tuple[str, Watcher]]:
        """What is to be called after the block, and after what reads the stream within it."""
        return [(self.stream.between, self._read_between), (self.stream.block, self._read)]

    def _read_between(self, _module: Any, args: Any, _named: Any, _output: Any) -> None:
        self.between = tokens(args[0])

    def _read(self, _module: Any, args: Any, _named: Any, output: Any) -> None:
        self.before, self.after = tokens(args[self.stream.argument]), tokens(output)


class ChangeMeter(StreamReader):
    """Measures what a block does to the stream, batch by batch."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.sums = torch.zeros(4, dtype=torch.float64)
        self.count = 0  # tokens

    def result(self) -> BlockChange:
        """The means over what was watched."""
        means = (self.sums / self.count).tolist()
        return BlockChange(self.stream.block, Change(*means[:2]), Change(*means[2:]))

    def _read(self, module: Any, args: Any, named: Any, output: Any) -> None:
        super()._read(module, args, named, output)
        attention = change(self.before, self.between)
        feed_forward = change(self.between, self.after)
        self.sums += torch.stack([part.sum() for part in (*attention, *feed_forward)]).double()
        self.count += self.before.shape[0] * self.before.shape[1]


def change(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """‖after - before‖ / ‖before‖ and the cosine between both, of tokens (B, N, C): (B, N) each."""
    size = before.norm(dim=-1).clamp_min(torch.finfo(before.dtype).tiny)
    return (after - before).norm(dim=-1) / size, F.cosine_similarity(before, after, dim=-1)
