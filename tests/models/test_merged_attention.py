"""Attention with its projections multiplied out: the same logits and gradients."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.fold import fold
from models.merged_attention import merged_attention
from models.registry import variant
from models.switches import ViTSwitches
from models.vit import Attention, merge_attention
from objectives.datasets import MNIST_SHAPE
from tests.models.zoo import unsettle

WIDE_HEADS = ViTSwitches(dim=16, depth=2, heads=3, dim_head=16, mlp_dim=32)
MODELS = ["vit", "vitbnffn", "vitbn", "vit_bn_ffnbn_wn", "vit_dyt", "vit_un"]


def pair(name: str, switches: ViTSwitches = WIDE_HEADS) -> tuple[nn.Module, nn.Module]:
    """A model in double precision, plain and with merged attention."""
    torch.manual_seed(0)
    plain = variant(name).build(MNIST_SHAPE, switches).double()
    merged = copy.deepcopy(plain)
    merge_attention(merged)
    assert all(module.is_merged for module in merged.modules() if isinstance(module, Attention))
    return plain, merged


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_is_the_same(name: str) -> None:
    plain, merged = pair(name)
    images, labels = torch.rand(6, 1, 28, 28, dtype=torch.float64), torch.arange(6)
    losses = []
    for model in (plain, merged):
        losses.append(F.cross_entropy(model(images), labels))
        losses[-1].backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=0.0, atol=1e-13)
    for one, other in zip(plain.parameters(), merged.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(merged.state_dict(), plain.state_dict(), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("name", ["vitbn", "vit_bn_ffnbn_wn", "vit_repbn"])
def test_a_folded_model_with_its_new_biases_is_the_same(name: str) -> None:
    plain = unsettle(pair(name)[0])
    folded = fold(plain).model
    assert any(m.to_qkv.bias is not None for m in folded.modules() if isinstance(m, Attention))
    merge_attention(folded)
    images = torch.rand(6, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), plain.eval()(images), rtol=0.0, atol=1e-12)


def test_a_feature_that_a_norm_has_switched_off_folds_all_the_same() -> None:
    plain = unsettle(pair("vitbn")[0])
    first = next(module for module in plain.modules() if isinstance(module, Attention))
    with torch.no_grad():
        first.norm.get_parameter("weight")[3] = 0.0
    folded = fold(plain).model
    merge_attention(folded)
    images = torch.rand(6, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), plain.eval()(images), rtol=0.0, atol=1e-12)


def test_dropout_acts_on_both_in_training_only() -> None:
    switches = ViTSwitches(dim=16, depth=2, heads=3, dim_head=16, mlp_dim=32, dropout=0.5)
    plain, merged = pair("vit", switches)
    images = torch.rand(4, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        assert (merged(images) - merged(images)).abs().max() > 1e-2
        torch.testing.assert_close(
            merged.eval()(images), plain.eval()(images), rtol=0.0, atol=1e-12
        )


def test_dropout_is_of_the_shares_of_attention() -> None:
    torch.manual_seed(0)
    to_qkv = nn.Linear(1, 3, bias=False)
    nn.init.ones_(to_qkv.weight)
    to_out = nn.Linear(1, 1)
    nn.init.ones_(to_out.weight)
    nn.init.zeros_(to_out.bias)
    tokens = torch.ones(50, 4, 1)  # all alike: each output is the sum of its four kept shares
    whole, halved = (merged_attention(tokens, to_qkv, to_out, 1, share) for share in (0.0, 0.5))
    torch.testing.assert_close(whole.detach(), tokens)
    assert set(halved.detach().mul(2).round().flatten().tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert halved.detach().mean().item() == pytest.approx(1.0, abs=0.2)


def test_many_tokens_are_left_to_the_kernels_for_them() -> None:
    small = ViTSwitches(dim=16, depth=1, heads=1, dim_head=16, mlp_dim=16, patch_size=2)
    assert merge_attention(variant("vit").build(MNIST_SHAPE, small))  # 197 tokens
    many = replace(small, patch_size=1)
    assert not merge_attention(variant("vit").build(MNIST_SHAPE, many))


def test_heads_narrower_than_the_tokens_are_not_merged() -> None:
    """That would take more multiply-adds, not fewer."""
    model = variant("vit").build(MNIST_SHAPE, ViTSwitches(dim=16, dim_head=8))
    assert not merge_attention(model)
    assert not any(m.is_merged for m in model.modules() if isinstance(m, Attention))


def test_merging_can_be_taken_back() -> None:
    plain, merged = pair("vitbn")
    merge_attention(merged, merged=False)
    images = torch.rand(4, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(merged(images), plain(images), rtol=0.0, atol=0.0)


def test_products_of_weights_keep_their_precision_under_bf16() -> None:
    plain, merged = (model.float().eval() for model in pair("vitbn"))
    images = torch.rand(8, 1, 28, 28)
    with torch.no_grad():
        exact = plain(images)
        with torch.autocast("cpu", torch.bfloat16):
            errors = [(model(images).float() - exact).norm() for model in (plain, merged)]
    assert 0.0 < errors[1] < 1.5 * errors[0] < 0.1 * exact.norm()
