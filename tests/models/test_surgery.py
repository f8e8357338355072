"""Switches do to every family what they say, and leave the rest alone."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from models.anatomy import anatomy
from models.norms import TokenBatchNorm
from models.registry import variant
from models.surgery import add_weight_norm, remove_weight_norm
from models.switches import ViTSwitches
from tests.models.zoo import ALL_SUFFIXES, IMAGE, SMALL, every_small_name, images, small


def kinds(model: nn.Module) -> Counter[str]:
    """How many modules of each class there are."""
    return Counter(type(module).__name__ for module in model.modules())


@pytest.mark.parametrize("name", list(every_small_name(ALL_SUFFIXES)))
def test_every_model_computes_and_every_parameter_gets_a_gradient(name: str) -> None:
    model = small(name)
    logits = model(images())
    assert logits.shape == (4, IMAGE.classes)
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("backbone", SMALL)
def test_every_layer_norm_is_replaced(backbone: str) -> None:
    norms = kinds(small(backbone))["LayerNorm"]
    found = kinds(small(f"{backbone}_bn"))
    assert norms == found["TokenBatchNorm"] == len(anatomy(small(backbone)).sites)
    assert found["LayerNorm"] == 0


@pytest.mark.parametrize("backbone", SMALL)
def test_lnbn_puts_batch_norm_before_feed_forwards_alone(backbone: str) -> None:
    model = small(f"{backbone}_lnbn")
    for site in anatomy(model).sites:
        is_batch_norm = isinstance(model.get_submodule(site.path), TokenBatchNorm)
        assert is_batch_norm == (site.role == "feed-forward"), site


@pytest.mark.parametrize("backbone", SMALL)
def test_relu6_replaces_the_activation_and_what_is_computed(backbone: str) -> None:
    plain, changed = small(backbone).eval(), small(f"{backbone}_relu6").eval()
    blocks = len(anatomy(plain).blocks)
    assert (kinds(plain)["GELU"], kinds(plain)["ReLU6"]) == (blocks, 0)
    assert (kinds(changed)["GELU"], kinds(changed)["ReLU6"]) == (0, blocks)
    assert not torch.equal(plain(images()), changed(images()))


def test_relu6_of_swin_is_what_its_feed_forward_calls() -> None:
    model = small("swin_tiny_relu6").eval()
    called: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.ReLU6):
            module.register_forward_hook(lambda *_, path=path: called.append(path))
    model(images())
    assert called == [f"{block}.mlp.act" for block in anatomy(model).blocks]


@pytest.mark.parametrize("backbone", SMALL)
def test_the_hidden_norm_stands_between_linear_and_activation(backbone: str) -> None:
    model = small(f"{backbone}_ffnbn")
    sites = [site for site in anatomy(model).sites if site.role == "hidden"]
    assert len(sites) == len(anatomy(model).blocks)
    seen: list[str] = []
    watched = [(site.before, site.path) for site in sites]
    for parts in anatomy(model).feed_forwards:
        model.get_submodule(parts.activation).register_forward_hook(lambda *_: seen.append("act"))
    for before, path in watched:
        model.get_submodule(before).register_forward_hook(lambda *_: seen.append("linear"))
        model.get_submodule(path).register_forward_hook(lambda *_: seen.append("norm"))
    model(images())
    assert seen == ["linear", "norm", "act"] * len(sites)


@pytest.mark.parametrize("backbone", SMALL)
def test_weight_norm_leaves_the_effective_weight_and_goes_exactly(backbone: str) -> None:
    plain = small(f"{backbone}_bn").double().eval()
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    logits = plain(images().double())
    add_weight_norm(plain)
    wrapped = [m for m in plain.modules() if parametrize.is_parametrized(m)]
    assert len(wrapped) == len(anatomy(plain).projections)
    torch.testing.assert_close(plain(images().double()), logits, rtol=0.0, atol=1e-13)

    normed = plain(images().double())
    assert len(remove_weight_norm(plain)) == len(wrapped)
    after = plain.state_dict()
    assert list(after) == list(before)
    torch.testing.assert_close(after, before, rtol=1e-15, atol=1e-15)
    assert torch.equal(plain(images().double()), normed)


def test_a_copy_without_weight_norm_leaves_the_original_its_own() -> None:
    model = small("deit_tiny_bn_wn").eval()
    logits = model(images())
    remove_weight_norm(copy.deepcopy(model))
    assert torch.equal(model(images()), logits)


def test_weight_norm_has_a_length_for_each_output() -> None:
    model = small("deit_tiny_wn")
    lengths = model.state_dict()["blocks.0.attn.qkv.parametrizations.weight.original0"]
    directions = model.state_dict()["blocks.0.attn.qkv.parametrizations.weight.original1"]
    assert lengths.shape == (96, 1)
    torch.testing.assert_close(lengths, directions.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("backbone", SMALL)
def test_all_variants_of_a_seed_begin_with_the_same_maps(backbone: str) -> None:
    plain = small(backbone).state_dict()
    for norm in ("bn", "rms", "prepbn", "derf"):
        other = small(f"{backbone}_{norm}_relu6").state_dict()
        shared = [key for key in plain if key in other and plain[key].dim() > 1]
        assert len(shared) > 5
        assert all(torch.equal(plain[key], other[key]) for key in shared)


def test_the_trio_is_put_together_as_before() -> None:
    """`vit_bn_ffnbn` has pre-norms in its feed-forwards that `vitbn` does not have."""
    assert kinds(small("vit_bn_ffnbn"))["TokenBatchNorm"] == 2 + 2 * 3 + 1
    built = variant("vitbn").build(IMAGE, ViTSwitches(depth=2))
    assert kinds(built)["TokenBatchNorm"] == 2 + 2 * 2 + 1
