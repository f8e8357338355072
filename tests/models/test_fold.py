"""Folding gives the same logits for every model of the zoo, and says what it had to keep."""

import copy

import pytest
import torch
from torch import nn

from models.anatomy import anatomy
from models.fold import fold
from models.norms import TokenBatchNorm, progressive_norms
from models.registry import ARTICLE, variant
from models.switches import ImageShape, ViTSwitches, ZooSwitches
from models.unified_norm import UnifiedNorm
from tests.models.zoo import ALL_SUFFIXES, IMAGE, SMALL, every_small_name, images, small, unsettle

MNIST = ImageShape(channels=1, size=28, classes=10)
NEVER = {"ln": "LayerNorm", "rms": "RMSNorm", "dyt": "DyT", "derf": "Derf"}


def difference(model: nn.Module, dtype: torch.dtype, image: ImageShape = IMAGE) -> float:
    """The largest change of a logit by folding, relative to the largest logit."""
    model = model.to(dtype).eval()
    pixels = images(8, image).to(dtype)
    with torch.no_grad():
        logits, folded = model(pixels), fold(model).model(pixels)
    assert logits.std() > 1e-5, "the logits must say something"
    return float((logits - folded).abs().max() / logits.abs().max().clamp_min(1.0))


@pytest.mark.parametrize("name", list(every_small_name("", ALL_SUFFIXES)))
def test_folding_is_exact(name: str) -> None:
    model = unsettle(small(name).double())
    assert difference(copy.deepcopy(model), torch.float64) <= 1e-12
    assert difference(model, torch.float32) <= 1e-5


@pytest.mark.parametrize("name", list(every_small_name("")))
def test_each_norm_folds_or_is_kept_with_a_reason(name: str) -> None:
    model = unsettle(small(name))
    done = fold(model)
    sites = {site.path for site in anatomy(model).sites}
    assert set(done.folded) | set(done.kept) == sites
    assert not set(done.folded) & set(done.kept)
    kind = name.rpartition("_")[2]
    if kind in NEVER:
        assert set(done.kept.values()) == {f"{NEVER[kind]} depends on each token"}
    elif kind == "lnbn":
        assert len(done.folded) == len(anatomy(model).blocks)
    else:
        assert done.kept == {}
    for path in done.folded:
        assert isinstance(done.model.get_submodule(path), nn.Identity)


@pytest.mark.parametrize(
    ("name", "folded", "kept"), [("vit", 0, 15), ("vitbnffn", 6, 9), ("vitbn", 15, 0)]
)
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_the_trio_folds_as_far_as_it_can(name: str, folded: int, kept: int, pool: str) -> None:
    torch.manual_seed(0)
    model = unsettle(ARTICLE[name](MNIST, ViTSwitches(pool=pool)).double())  # type: ignore[arg-type]
    done = fold(model)
    assert (len(done.folded), len(done.kept)) == (folded, kept)
    left = [m for m in done.model.modules() if isinstance(m, TokenBatchNorm | UnifiedNorm)]
    assert left == []
    assert difference(model, torch.float64, MNIST) <= 1e-12


def test_a_bias_is_made_where_queries_keys_and_values_had_none() -> None:
    model = unsettle(small("vit_bn"))
    path = "transformer.layers.0.0.to_qkv"
    assert model.get_submodule(path).bias is None
    assert fold(model).model.get_submodule(path).bias.shape == (3 * 16,)


def test_both_heads_take_the_last_norm_in() -> None:
    model = unsettle(small("deit_base_distilled_bn"))
    folded = fold(model).model
    for head in ("head", "head_dist"):
        before, after = (m.get_submodule(head).state_dict()["weight"] for m in (model, folded))
        assert not torch.equal(before, after)


def test_the_model_itself_stays_as_it_is() -> None:
    model = unsettle(small("deit_tiny_bn_wn")).train()
    before = copy.deepcopy(model.state_dict())
    done = fold(model)
    assert model.training
    assert not done.model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0.0, atol=0.0)
    assert len(done.fused) == 8


def test_a_norm_before_windows_that_are_padded_stays() -> None:
    """Zeros are added behind the norm, so the shift would be missing there."""
    image = ImageShape(channels=3, size=40, classes=10)
    model = unsettle(small("swin_tiny_bn", image, patch_size=4, window_size=4).double())
    done = fold(model)
    padded = [path for path, reason in done.kept.items() if "windows of 4 do not tile" in reason]
    assert padded == list(done.kept)
    assert padded == ["layers.0.blocks.0.norm1", "layers.1.blocks.0.norm1"]
    assert difference(model, torch.float64, image) <= 1e-12


def test_statistics_of_the_batch_cannot_fold() -> None:
    done = fold(small("deit_tiny_bn", track_running_stats=False))
    assert done.folded == ()
    assert set(done.kept.values()) == {"it normalises by the statistics of the batch"}


def test_prepbn_stays_until_lambda_is_zero_and_then_equals_its_repbn() -> None:
    model = unsettle(small("deit_tiny_prepbn").double()).eval()
    for norm in progressive_norms(model):
        norm.set_progress(0.4)
    assert "λ = 0.5" in fold(model).kept["norm"]
    assert difference(model, torch.float64) == 0.0

    for norm in progressive_norms(model):
        norm.set_progress(0.8)
    plain = small("deit_tiny_repbn").double().eval()
    state = {key.replace(".rep.", "."): value for key, value in model.state_dict().items()}
    plain.load_state_dict({key: value for key, value in state.items() if key in plain.state_dict()})
    pixels = images().double()
    torch.testing.assert_close(model(pixels), plain(pixels), rtol=0.0, atol=0.0)
    torch.testing.assert_close(fold(model).model(pixels), plain(pixels), rtol=0.0, atol=1e-13)


def test_prepbn_that_must_stay_is_left_as_repbn() -> None:
    image = ImageShape(channels=3, size=40, classes=10)
    model = unsettle(small("swin_tiny_prepbn", image, patch_size=4, window_size=4))
    done = fold(model)
    assert done.kept
    assert progressive_norms(done.model) == []


@pytest.mark.parametrize("name", ["timm:vit_base_patch16_clip_224", "timm:vit_tiny_patch16_224"])
def test_a_norm_on_the_residual_stream_stays(name: str) -> None:
    chosen = variant(f"{name}_bn")
    switches = ZooSwitches(dim=32, depth="2", heads=2, patch_size=8)
    torch.manual_seed(0)
    model = unsettle(chosen.build(IMAGE, switches).double())
    kept = fold(model).kept
    assert kept == ({"norm_pre": "it stands on the residual stream"} if "clip" in name else {})
    assert difference(model, torch.float64) <= 1e-12


def test_every_small_backbone_is_folded_here() -> None:
    assert {name.rsplit("_", 1)[0] for name in every_small_name("")} == set(SMALL)
