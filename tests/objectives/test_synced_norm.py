"""SyncBN: a batch divided among two processes is normalised as one BatchNorm would normalise it."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from models.norms import TokenBatchNorm, whole_and_alone
from objectives.team import Team
from tests.objectives.teams import by_team

Found = dict[str, Tensor]
STEPS = 2  # so that running averages move from where they have moved


def norm_of(dtype: torch.dtype, momentum: float | None) -> TokenBatchNorm:
    torch.manual_seed(1)
    norm = TokenBatchNorm(3, momentum=momentum, dtype=dtype)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


def batch(images: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Tokens (B, 4, 3) far from zero, where sums of squares cancel, and gradients for them."""
    torch.manual_seed(2)
    x = torch.randn(images, 4, 3, dtype=dtype) * torch.tensor([1.0, 5.0, 0.2], dtype=dtype)
    return x + torch.tensor([0.0, -300.0, 20.0], dtype=dtype), torch.randn_like(x)


def normalised(norm: TokenBatchNorm, x: Tensor, grad: Tensor) -> Found:
    x = x.clone().requires_grad_()
    for _ in range(STEPS):
        out = norm(x)
    out.backward(grad)
    assert x.grad is not None
    averages = {name: value.clone() for name, value in norm.state_dict().items()}
    return {"out": out.detach(), "grad": x.grad, **averages}


def shares(team: Team, images: int, dtype: torch.dtype, momentum: float | None) -> Any:
    """In one process: its share in training; then evaluated, and trained on all by itself."""
    norm = norm_of(dtype, momentum)
    norm.synced = True
    x, grad = batch(images, dtype)
    found = normalised(norm, team.shard(x), team.shard(grad))
    team.sum_gradients(norm.parameters())
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    found |= {"weight_grad": norm.weight.grad.clone(), "bias_grad": norm.bias.grad.clone()}
    if team.rank == 0:  # in what the others take no part in
        found["evaluated"] = norm.eval()(x).detach()
        with whole_and_alone([norm.train()]):
            found["alone"] = norm(x).detach()
    return found


@pytest.mark.parametrize(
    ("images", "dtype", "momentum"), [(6, torch.float32, 0.1), (5, torch.float64, None)]
)
def test_two_processes_normalise_as_one(
    images: int, dtype: torch.dtype, momentum: float | None
) -> None:
    norm = norm_of(dtype, momentum)
    x, grad = batch(images, dtype)
    whole = normalised(norm, x, grad)
    first, second = by_team(shares, images, dtype, momentum)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-4
    same = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    for name in ("out", "grad"):
        together = torch.empty_like(x)
        together[0::2], together[1::2] = first[name], second[name]
        same(together, whole[name])
    for name in ("weight_grad", "bias_grad", *norm.state_dict()):
        assert torch.equal(first[name], second[name]), name
    same(first["weight_grad"], norm.weight.grad)
    same(first["bias_grad"], norm.bias.grad)
    for name, value in norm.state_dict().items():
        same(first[name], value)
    same(first["alone"], whole["out"])
    same(first["evaluated"], norm.eval()(x).detach())
