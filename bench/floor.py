"""The floor of a step: its matrix products and attention alone, without all that lies between."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.switches import ViTSwitches

Product = Callable[[], Tensor]


def floor(
    switches: ViTSwitches, batch_size: int, dtype: torch.dtype, device: torch.device, merged: bool
) -> Callable[[], None]:
    """All products of one training step, forward and backward, as one call.

    `merged` takes those of `models.merged_attention`, else those that the article's model defines.
    """
    tokens, s = 17, switches
    inner = s.heads * s.dim_head
    rows = batch_size * tokens
    if merged:
        shapes = [(s.dim, s.heads * s.dim), (s.heads * s.dim, s.dim)]
        attention = (batch_size, tokens * s.heads, s.dim)
    else:
        shapes = [(s.dim, 3 * inner), (inner, s.dim)]
        attention = (batch_size * s.heads, tokens, s.dim_head)
    shapes += [(s.dim, s.mlp_dim), (s.mlp_dim, s.dim)]
    new = partial(torch.randn, device=device, dtype=dtype)
    products: list[Product] = []
    for _ in range(s.depth):
        for inputs, outputs in shapes:
            products += _linear(new, rows, inputs, outputs)
        products += _attention(new, *attention, tokens)
    products += _linear(new, batch_size * (tokens - 1), 49, s.dim)

    def step() -> None:
        for product in products:
            product()

    return step


def _linear(new: Callable[..., Tensor], rows: int, inputs: int, outputs: int) -> list[Product]:
    x, weight, grad = new(rows, inputs), new(outputs, inputs), new(rows, outputs)
    return [
        partial(torch.mm, x, weight.t()),
        partial(torch.mm, grad, weight),
        partial(torch.mm, grad.t(), x),
    ]


def _attention(
    new: Callable[..., Tensor], batch: int, queries: int, width: int, tokens: int
) -> list[Product]:
    q, k, shares = (
        new(batch, queries, width),
        new(batch, tokens, width),
        new(batch, queries, tokens),
    )
    scores = partial(torch.bmm, q, k.transpose(1, 2))  # also the gradient of the shares
    mixed = partial(torch.bmm, shares, k)  # also the gradient of the queries
    to_keys = partial(torch.bmm, shares.transpose(1, 2), q)  # and of the values
    return [scores, scores, mixed, mixed, to_keys, to_keys]
