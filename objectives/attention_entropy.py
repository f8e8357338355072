"""How evenly each head of an attention looks at its keys."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.anatomy import AttentionKind, AttentionParts
from objectives.watching import Watcher

MOST_SHARES = 2**24  # computed at once: 64 MiB in float32


@dataclass(frozen=True)
class AttentionEntropy:
    """The entropy of each head's attention, mean over queries and images, by log(keys).

    1 where every key gets the same share, 0 where one gets all. A key that a mask hides counts as
    one. CaiT's talking heads are measured between the two mixtures over heads, where shares of
    the keys still add up to 1.
    """

    path: str
    heads: tuple[float, ...]


class EntropyMeter:
    """Measures an attention from the queries and keys that its maps return."""

    def __init__(self, parts: AttentionParts) -> None:
        self.parts = parts
        self.mapped: list[Tensor] = []  # what the maps returned in this forward pass
        self.total: Tensor | None = None  # (heads,)
        self.queries = 0  # of all images

    def watchers(self) -> list[tuple[str, Watcher]]:
        """What is to be called after the maps, and after the attention."""
        maps: list[tuple[str, Watcher]] = [
            (path, lambda *told: self.mapped.append(told[3])) for path in self.parts.maps
        ]
        return [*maps, (self.parts.path, self._add)]

    def result(self) -> AttentionEntropy:
        """The mean over what was watched."""
        assert self.total is not None
        return AttentionEntropy(self.parts.path, tuple((self.total / self.queries).tolist()))

    def _add(self, module: nn.Module, _args: Any, named: Any, _output: Any) -> None:
        queries, keys = queries_and_keys(self.parts.kind, module, self.mapped)
        self.mapped = []
        mask = named.get("mask")
        windows = 1 if mask is None else len(mask)
        images = queries.shape[0] // windows
        each = windows * queries.shape[1] * queries.shape[2] * keys.shape[2]
        at_once = max(MOST_SHARES // each, 1) * windows
        for some, others in zip(queries.split(at_once), keys.split(at_once), strict=True):
            shares = attention_shares(self.parts.kind, module, some, others, mask)
            entropy = relative_entropy(shares).sum(dim=(0, 2)).double()  # (heads,)
            self.total = entropy if self.total is None else self.total + entropy
        self.queries += images * windows * queries.shape[2]


def queries_and_keys(
    kind: AttentionKind, module: Any, mapped: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, heads, tokens, width), the former scaled, from what the maps returned.

    For Swin B counts windows: images × windows.
    """
    heads = module.heads if hasattr(module, "heads") else module.num_heads
    if kind == "class":
        queries, keys = mapped
        queries = queries.unflatten(-1, (heads, -1))[:, None].transpose(1, 2)
        keys = keys.unflatten(-1, (heads, -1)).transpose(1, 2)
    else:
        (joint,) = mapped
        queries, keys, _ = joint.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return queries * queries.shape[-1] ** -0.5, keys


def attention_shares(
    kind: AttentionKind, module: Any, queries: Tensor, keys: Tensor, mask: Tensor | None
) -> Tensor:
    """What each query gives to each key, (B, heads, queries, keys); adds up to 1 over the keys.

    `mask` (windows, tokens, tokens) is Swin's, of shifted windows.
    """
    scores = queries @ keys.transpose(-2, -1)
    if kind == "windows":
        scores = scores + module._get_rel_pos_bias()
        if mask is not None:
            by_window = scores.unflatten(0, (-1, len(mask)))
            scores = (by_window + mask[:, None]).flatten(0, 1)
    elif kind == "talking":
        scores = module.proj_l(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return scores.softmax(dim=-1)


def relative_entropy(shares: Tensor) -> Tensor:
    """The entropy over the last dimension by the largest possible; 1 where there is one key."""
    keys = shares.shape[-1]
    if keys == 1:
        return torch.ones_like(shares[..., 0])
    return torch.special.entr(shares).sum(dim=-1) / math.log(keys)
