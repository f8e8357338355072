"""Attention whose four projections are multiplied out to two, where that is less work.

With normalised tokens x, a head's scores are x·Wqᵀ·(x·Wkᵀ)ᵀ = x·(Wqᵀ·Wk)·xᵀ, and what it adds to
the output is A·(x·Wvᵀ)·Woᵀ = A·x·(Wo·Wv)ᵀ. Where a head is as wide as the tokens, as in the
article's models, the two products of weights are no larger than one of their factors: half the
multiply-adds of the projections vanish, and all heads share x as keys and values, so that nothing
is laid out anew between the products. Logits and gradients are the same but for rounding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def merged_attention(
    x: Tensor, to_qkv: nn.Linear, to_out: nn.Linear, heads: int, dropout: float
) -> Tensor:
    """Self-attention of normalised tokens, (B, N, dim) → (B, N, dim).

    `dropout` is of the shares of attention. A bias of `to_qkv` is not read.
    """
    batch, tokens, dim = x.shape
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))  # once, not for each of its three products
        with torch.autocast(device, enabled=False):  # weights are multiplied as exactly as stored
            to_queries, to_outputs = _multiplied_out(to_qkv, to_out, heads)
    else:
        to_queries, to_outputs = _multiplied_out(to_qkv, to_out, heads)
    queries = F.linear(x, to_queries).view(batch, tokens * heads, dim)
    scores = torch.bmm(queries, x.transpose(1, 2))  # (B, N·heads, N)
    shares = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    shares = F.dropout(shares, dropout).to(x.dtype)
    mixed = torch.bmm(shares, x).view(batch, tokens, heads * dim)
    return F.linear(mixed, to_outputs, to_out.bias)


def _multiplied_out(to_qkv: nn.Linear, to_out: nn.Linear, heads: int) -> tuple[Tensor, Tensor]:
    """Weights from tokens to all heads' scaled queries, and from their mixtures to outputs."""
    dim = to_qkv.in_features
    query, key, value = to_qkv.weight.view(3, heads, -1, dim)  # each (heads, dim_head, dim)
    out = to_out.weight.view(dim, heads, -1).transpose(0, 1)  # (heads, dim, dim_head)
    key = key.transpose(1, 2) * query.shape[1] ** -0.5
    to_queries = torch.bmm(key, query).view(heads * dim, dim)
    to_outputs = torch.bmm(out, value).transpose(0, 1).reshape(dim, heads * dim)
    return to_queries, to_outputs
