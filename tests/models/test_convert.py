"""A trained LayerNorm model made into a BatchNorm one comes near it, and can go on from there."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.anatomy import anatomy
from models.convert import CONVERTIBLE, convert
from models.errors import InputError
from models.norms import ProgressiveRepBatchNorm, TokenBatchNorm, batch_norms
from models.registry import variant
from tests.models.zoo import IMAGE, SMALL, images, small, small_switches


def trained(backbone: str) -> nn.Module:
    """A LayerNorm model whose norms and tokens have learnt something."""
    model = small(backbone)
    torch.manual_seed(4)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
        for key, parameter in model.named_parameters():
            if "token" in key or "pos_embed" in key:  # timm draws them all but zero
                parameter.normal_(0.0, 0.5)
            if "gamma_" in key:
                parameter.fill_(0.3)
    return model.eval()


def converted(backbone: str, norm: str, suffix: str = "") -> tuple[nn.Module, nn.Module]:
    """A trained model, and what is made of a copy of it."""
    chosen = variant(f"{backbone}_{norm}{suffix}")
    model = trained(backbone)
    made = convert(copy.deepcopy(model), chosen.parts, small_switches(chosen), images(64))
    return model, made.eval()


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("norm", CONVERTIBLE)
@torch.no_grad()
def test_each_norm_is_fitted_to_what_the_ones_before_it_let_through(
    backbone: str, norm: str
) -> None:
    """By least squares: what is left of the error has no mean and does not depend on the input."""
    model, made = converted(backbone, norm)
    assert list(made.state_dict()) == list(small(f"{backbone}_{norm}").state_dict())
    for path, (x, got) in watched(made, images(64)).items():
        wanted, new = model.get_submodule(path)(x), made.get_submodule(path)
        if isinstance(new, ProgressiveRepBatchNorm):  # so far its LayerNorm is all that counts
            torch.testing.assert_close(got, wanted, rtol=0.0, atol=1e-5)
            got = new.rep(x)
        rows, error = (tensor.flatten(0, -2) for tensor in (x, got - wanted))
        spread = rows.std(dim=0) * wanted.std() + 1e-6
        assert (error.mean(dim=0).abs() < 1e-3 * wanted.std()).all(), path
        along = ((rows - rows.mean(dim=0)) * error).mean(dim=0)
        assert (along.abs() < 5e-3 * spread).all(), path
        if norm == "bn":
            assert isinstance(new, TokenBatchNorm)
            torch.testing.assert_close(new.running_mean, rows.mean(dim=0), rtol=1e-3, atol=1e-4)


def watched(made: nn.Module, pixels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What goes into each norm that is no LayerNorm, and what comes out."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for site in anatomy(made).sites:
        norm = made.get_submodule(site.path)
        if not isinstance(norm, nn.LayerNorm):
            norm.register_forward_hook(
                lambda _, given, got, path=site.path: seen.update({path: (given[0], got)})
            )
    made(pixels)
    return seen


@torch.no_grad()
def test_prepbn_is_at_first_the_trained_model_itself() -> None:
    model, made = converted("deit_tiny", "prepbn")
    torch.testing.assert_close(made(images()), model(images()), rtol=0.0, atol=1e-6)


@torch.no_grad()
def test_hidden_norms_change_nothing_at_first() -> None:
    model, made = converted("deit_tiny", "ln", "_ffnbn_wn")
    assert len(batch_norms(made)) == 2
    torch.testing.assert_close(made(images()), model(images()), rtol=0.0, atol=1e-5)


def test_a_converted_model_trains() -> None:
    _, made = converted("swin_tiny", "bn", "_wn_relu6")
    optimizer = torch.optim.Adam(made.train().parameters(), lr=1e-3)
    labels = torch.arange(16) % IMAGE.classes
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(made(images(16)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("norm", ["rms", "dyt_ffnbn", "derf_wn", "ln"])
def test_norms_of_another_kind_are_refused(norm: str) -> None:
    chosen = variant(f"deit_tiny_{norm}")
    with pytest.raises(InputError, match="makes BatchNorms of LayerNorms, which deit_tiny"):
        convert(small("deit_tiny"), chosen.parts, small_switches(chosen), images())


def test_the_articles_bn_models_have_no_twin_to_convert() -> None:
    with pytest.raises(InputError, match=r"vitbn is put together otherwise.*vit_bn_ffnbn"):
        variant("vitbn").build_twin(IMAGE)
