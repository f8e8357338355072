"""The activation lab: each number against a direct computation, for every family."""

import copy
import json
import math
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.anatomy import anatomy
from models.errors import InputError
from models.fold import fold
from models.modes import modes_kept
from models.norms import TokenBatchNorm
from models.registry import variant
from models.vit import Attention, ViT, merge_attention
from objectives.activations import Inspection, inspect
from objectives.attention_entropy import attention_shares, queries_and_keys, relative_entropy
from objectives.batch_stats import recalibrated
from objectives.channels import Channels, spread
from objectives.data import SearchData
from objectives.images import Split
from objectives.injection import check_factor
from objectives.residual import StreamReader
from objectives.watching import watched
from tests.conftest import TINY
from tests.models.zoo import ALL_SUFFIXES, IMAGE, SMALL, small, unsettle

COUNT = 40  # images: two batches, the second smaller


@pytest.fixture(scope="module")
def split() -> Split:
    """Noise in the shape of the small models' images."""
    generator = torch.Generator().manual_seed(3)
    shape = (COUNT, IMAGE.channels, IMAGE.size, IMAGE.size)
    pixels = torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
    return Split(pixels, torch.randint(0, 10, (COUNT,), generator=generator))


def inspected(model: nn.Module, split: Split, factor: float | None = None) -> Inspection:
    return inspect(model, split, split.all_pixels(), factor)


NAMES = [f"{backbone}{rest}" for backbone in SMALL for rest in ("_ln", f"_bn{ALL_SUFFIXES}")]
"""Each family as it was published, and with all that surgery does."""


def branches(block: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Stream before, between and after, (B, N, C) each, written out for each family by hand."""
    if isinstance(block, nn.Sequential):  # the article's
        attention, feed_forward = block
        (x,) = args
        between = x + attention(x)
        return x, between, between + feed_forward(between)
    if hasattr(block, "gamma_1"):  # CaiT's
        x = args[-1]
        read = torch.cat((args[1], args[0]), dim=1) if len(args) == 2 else x
        between = x + block.gamma_1 * block.attn(block.norm1(read))
        return x, between, between + block.gamma_2 * block.mlp(block.norm2(between))
    (x,) = args
    attend = block._attn if hasattr(block, "_attn") else block.attn
    between = (x + attend(block.norm1(x))).flatten(1, -2)
    return x.flatten(1, -2), between, between + block.mlp(block.norm2(between))


# Windows of Swin's second block that are shifted and masked; and padded with zeros besides.
SHIFTED: dict[str, Any] = {"depth": "2,1,1,1", "window_size": 4}
PADDED: dict[str, Any] = {"depth": "2,1,1,1", "window_size": 7}
MODELS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in NAMES] + [
    ("swin_tiny_bn", SHIFTED),
    ("swin_tiny_ln", PADDED),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "changes"), MODELS)
def test_branches_are_measured_as_they_are_computed(
    name: str, changes: dict[str, Any], split: Split
) -> None:
    model = unsettle(small(name, **changes)).eval()
    measured = inspected(model, split).blocks
    paths = anatomy(model).blocks
    assert [change.path for change in measured] == list(paths)
    given: dict[str, tuple[Tensor, ...]] = {}

    def keep(path: str) -> Any:
        return lambda _module, args, _named, _output: given.__setitem__(path, args)

    with watched(model, [(path, keep(path)) for path in paths]):
        model(split.all_pixels())
    for path, block in zip(paths, measured, strict=True):
        before, between, after = branches(model.get_submodule(path), given[path])
        for x, y, change in (
            (before, between, block.attention),
            (between, after, block.feed_forward),
        ):
            relative = ((y - x).norm(dim=-1) / x.norm(dim=-1)).mean()
            cosine = ((x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))).mean()
            assert change.relative == pytest.approx(float(relative), rel=1e-4)
            assert change.cosine == pytest.approx(float(cosine), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("name", "changes"), MODELS)
def test_shares_of_attention_are_those_that_the_model_uses(
    name: str, changes: dict[str, Any], split: Split
) -> None:
    """Mixing the values by them gives what the attention returns."""
    model = unsettle(small(name, **changes)).eval()
    masks = 0
    for stream in anatomy(model).streams:
        parts = stream.attention
        module: Any = model.get_submodule(parts.path)
        mapped: list[Tensor] = []
        seen: dict[str, Any] = {}

        def keep(_m: Any, args: Any, named: Any, output: Any, seen: Any = seen) -> None:
            seen.update(args=args, mask=named.get("mask"), output=output)

        maps = [(path, lambda *told, m=mapped: m.append(told[3])) for path in parts.maps]
        with watched(model, [*maps, (parts.path, keep)]):
            model(split.all_pixels())
        masks += seen["mask"] is not None
        queries, keys = queries_and_keys(parts.kind, module, mapped)
        shares = attention_shares(parts.kind, module, queries, keys, seen["mask"])
        assert torch.allclose(shares.sum(-1), torch.ones(()), atol=1e-5)
        heads = queries.shape[1]
        if parts.kind == "class":
            values = module.v(seen["args"][0]).unflatten(-1, (heads, -1)).transpose(1, 2)
        else:
            values = mapped[0].unflatten(-1, (3, heads, -1))[:, :, 2].transpose(1, 2)
        if parts.kind == "talking":
            shares = module.proj_w(shares.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        mixed = (shares @ values).transpose(1, 2).flatten(2)
        out = module.to_out(mixed) if isinstance(module, Attention) else module.proj(mixed)
        torch.testing.assert_close(out, seen["output"], rtol=1e-3, atol=1e-4)
    assert masks == (1 if changes else 0)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_norms_are_measured_over_all_images(name: str, split: Split) -> None:
    model = unsettle(small(name)).eval()
    found = inspected(model, split)
    assert [layer.path for layer in found.layers] == [site.path for site in anatomy(model).sites]
    assert len(found.attention) == len(found.activations) == len(found.blocks)
    depths = [layer.depth for layer in found.layers]
    assert depths == sorted(depths)
    assert depths[-1] == len(found.blocks) + 1
    last = found.layers[-2]
    outputs: list[Tensor] = []
    with watched(model, [(last.path, lambda *told: outputs.append(told[3]))]):
        logits = model(split.all_pixels())
    (values,) = (output.flatten(0, -2) for output in outputs)
    assert last.output.mean == pytest.approx(float(values.mean()), abs=1e-5)
    assert last.output.variance == pytest.approx(float(values.var(correction=0)), rel=1e-4)
    assert last.output.highest == pytest.approx(float(values.max()))
    wanted = values.mean(0).var(correction=0) / values.var(correction=0)
    assert last.output.between == pytest.approx(float(wanted), rel=1e-3)
    by_image = outputs[0].flatten(1, -2)
    wanted = by_image.mean(1).var(1, correction=0).mean()
    wanted /= by_image.flatten(1).var(1, correction=0).mean()
    assert last.output.between_in_image == pytest.approx(float(wanted), rel=1e-4)
    torch.testing.assert_close(torch.tensor(last.channels.mean), values.mean(0))
    torch.testing.assert_close(torch.tensor(last.channels.lowest), values.amin(0))
    hits = (logits.argmax(1) == split.labels).float().mean()
    assert found.accuracy == pytest.approx(float(hits))


def test_planted_extreme_channels_are_found(split: Split) -> None:
    model = small("deit_tiny")
    layer = anatomy(model).sites[2]
    norm = model.get_submodule(layer.path)
    assert isinstance(norm, nn.LayerNorm)
    with torch.no_grad():
        norm.bias[5] = 80.0
        norm.weight[9] = 40.0
    found = inspected(model, split).layers[2].output
    assert found.extreme_channels == (5, 9)
    assert found.highest > 80.0
    assert found.between > found.between_others
    assert found.variance_of_others == pytest.approx(1.0, rel=0.2)
    assert found.channels == 32


def test_a_layer_in_numbers() -> None:
    channels = Channels((1.0, 3.0, 2.0), (0.5, 0.5, 2.0), (-1.0, 1.0, -19.0), (2.0, 3.0, 4.0))
    assert channels.magnitudes == (2.0, 3.0, 19.0)
    assert channels.extreme == (2,)
    found = spread(channels, 0.25)
    assert found.mean == 2.0
    assert found.variance == pytest.approx(2 / 3 + 1.0)
    assert found.between == pytest.approx((2 / 3) / (5 / 3))
    assert (found.variance_of_others, found.between_others) == pytest.approx((1.5, 1.0 / 1.5))
    assert spread(Channels(*[(0.0, 0.0)] * 4), 0.0).between == 0.0


def test_even_attention_has_entropy_1_and_attention_to_one_key_0(split: Split) -> None:
    assert relative_entropy(torch.full((2, 5), 0.2)).tolist() == pytest.approx([1.0, 1.0])
    assert relative_entropy(torch.eye(3)).tolist() == [0.0] * 3
    assert relative_entropy(torch.ones(4, 1)).tolist() == [1.0] * 4
    half = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert float(relative_entropy(half)) == pytest.approx(0.5)
    model = unsettle(small("deit_tiny"))
    with torch.no_grad():
        model.get_parameter("blocks.0.attn.qkv.weight")[:16].zero_()  # the first head's queries
    first, second = inspected(model, split).attention[0].heads
    assert first == pytest.approx(1.0, abs=1e-6)
    assert second < 0.999


def test_attention_too_large_for_one_piece_is_measured_in_several(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = unsettle(small("swin_tiny", **SHIFTED))
    whole = inspected(model, split).attention
    monkeypatch.setattr("objectives.attention_entropy.MOST_SHARES", 1)
    parts = inspected(model, split).attention
    for one, other in zip(whole, parts, strict=True):
        assert one.heads == pytest.approx(other.heads, rel=1e-5)


@pytest.mark.parametrize("name", ["vit_ln_relu6", "deit_tiny_bn_ffnbn_relu6", "deit_tiny_ln"])
def test_saturation_of_a_planted_bias_is_known(name: str, split: Split) -> None:
    model = small(name)
    parts = anatomy(model).feed_forwards[1]
    hidden = model.get_submodule(parts.first)
    assert isinstance(hidden, nn.Linear)
    with torch.no_grad():
        hidden.weight.zero_()
        units = len(hidden.bias)
        values = torch.tensor([7.0, 6.0, -1.0, 3.0]).repeat(units // 4)
        if "ffnbn" in name:
            hidden.bias.zero_()
            norm = model.get_submodule(f"{parts.activation.rpartition('.')[0]}.norm")
            assert isinstance(norm, TokenBatchNorm)
            norm.bias.copy_(values)
        else:
            hidden.bias.copy_(values)
    found = inspected(model, split).activations[1]
    assert found.off == 0.25
    assert found.full == (0.5 if "relu6" in name else None)
    assert found.activation == ("ReLU6" if "relu6" in name else "GELU")


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_left_as_it_was(split: Split, fails: bool) -> None:
    model = unsettle(small("vit_bn", dim=16, dim_head=16))
    assert isinstance(model, ViT)
    assert merge_attention(model)
    model.train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    if fails:
        wrong = Split(split.images[:, :1], split.labels)
        with pytest.raises(RuntimeError):
            inspected(model, wrong, 2.0)
    else:
        inspected(model, split, 2.0)
    assert [module.training for module in model.modules()] == modes
    assert all(module.is_merged for module in model.modules() if isinstance(module, Attention))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])


def test_merged_attention_is_measured_as_the_model_defines_it(split: Split) -> None:
    model = unsettle(small("vit", dim=16, dim_head=16))
    plain = inspected(model, split)
    merge_attention(model)
    assert inspected(model, split) == plain


def test_an_injected_extreme_is_followed_through_the_blocks(split: Split) -> None:
    model = unsettle(small("vit"))
    assert isinstance(model, ViT)
    with torch.no_grad():
        model.pos_embedding[:, 3] += 60.0
    found = inspected(model, split, 4.0).injection
    assert found is not None
    assert found.channel == 3
    reader = StreamReader(anatomy(model).streams[0])
    with torch.no_grad(), modes_kept(model), watched(model, reader.watchers()):
        model.eval()(split.all_pixels())
    x = reader.before
    wanted = 3.0 * x[..., 3].abs() / x.norm(dim=-1)
    assert found.at_entry == pytest.approx(float(wanted.mean()), rel=1e-4)
    assert len(found.after_blocks) == 2
    assert found.logits > 0.01
    nothing = inspected(model, split, 1.0).injection
    assert nothing is not None
    assert (nothing.after_blocks, nothing.logits, nothing.same_answer) == ((0.0, 0.0), 0.0, 1.0)
    assert nothing.accuracy == nothing.accuracy_injected


@pytest.mark.parametrize("factor", [-1.0, math.nan, math.inf])
def test_a_factor_that_is_none_is_refused(factor: float) -> None:
    with pytest.raises(InputError, match="must be a number of at least 0"):
        check_factor(factor)


def test_running_averages_are_told_from_the_population(split: Split) -> None:
    model = small("vit_bn_ffnbn").eval()
    first, *_ = (m for m in model.modules() if isinstance(m, TokenBatchNorm))
    with recalibrated(model, split.all_pixels()):
        state = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    exact = inspected(model, split).statistics
    assert len(exact) == 9
    for one in exact:
        assert one.mean_shift == pytest.approx(0.0, abs=1e-6)
        assert one.variance_ratio == pytest.approx(1.0)
    assert first.running_mean is not None
    assert first.running_var is not None
    with torch.no_grad():
        first.running_mean += 2.0 * (first.running_var + first.eps).sqrt()
        first.running_var.copy_(4.0 * (first.running_var + first.eps) - first.eps)
    off = inspected(model, split).statistics
    assert off[0].path == "to_patch_embedding.1"
    assert off[0].mean_shift == pytest.approx(2.0, rel=1e-4)
    assert off[0].variance_ratio == pytest.approx(4.0, rel=1e-4)
    assert off[1:] == exact[1:]  # under the exact statistics of the first


def test_a_folded_model_tells_where_norms_were(split: Split) -> None:
    plain = unsettle(small("vit_bn"))
    whole, folded = inspected(plain, split), inspected(fold(plain).model, split)
    assert folded.folded == tuple(layer.path for layer in whole.layers)
    assert (folded.layers, folded.statistics) == ((), ())
    for one, other in zip(whole.blocks, folded.blocks, strict=True):
        assert one.attention.relative == pytest.approx(other.attention.relative, rel=1e-4)
    for before, after in zip(whole.attention, folded.attention, strict=True):
        assert fmean(before.heads) == pytest.approx(fmean(after.heads), rel=1e-4)


@torch.no_grad()
def test_feature_maps_are_the_patches_row_by_row(split: Split) -> None:
    model = unsettle(small("vit")).eval()
    assert isinstance(model, ViT)
    maps = inspected(model, split).maps
    assert [one.block for one in maps] == [1] * 4 + [2] * 4
    reader = StreamReader(anatomy(model).streams[1])
    with watched(model, reader.watchers()):
        model(split.all_pixels()[:1])
    patches = reader.after[0, 1:]
    side = math.isqrt(len(patches))
    one = maps[4]
    assert one.channel == int(patches.var(0).argmax())
    wanted = patches[:, one.channel]
    for row in range(side):
        assert one.pixels[row] == tuple(wanted[row * side : (row + 1) * side].tolist())
    assert len(one.pixels) == side


def test_class_blocks_have_no_maps_and_prefixes_are_left_out(split: Split) -> None:
    cait = inspected(small("cait_xxs24"), split)
    assert {one.block for one in cait.maps} == {1, 2}
    distilled = inspected(small("deit_base_distilled"), split)
    assert {len(one.pixels) for one in distilled.maps} == {8}


def test_numbers_that_are_none_become_null(split: Split) -> None:
    model = small("vit")
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    text = json.dumps(inspected(model, split, 2.0).as_dict(), allow_nan=False)
    assert '"variance": null' in text


def test_real_images_with_their_scaling(subset: SearchData) -> None:
    model = variant("vitbn").build(subset.shape, TINY)
    found = inspected(model, subset.validation)
    assert found.images == 83
    assert [layer.norm for layer in found.layers] == ["TokenBatchNorm"] * 7
    assert found.layers[3].role == "hidden"
