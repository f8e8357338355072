"""The published sizes: exact parameters and multiply-adds, one real step, timm's own numbers."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.anatomy import anatomy
from models.backbones import BACKBONES
from models.errors import InputError
from models.profile import profile
from models.registry import variant
from models.switches import ImageShape, ZooSwitches
from models.torchvision_import import timm_module
from tests.models.zoo import SMALL, images, small, small_switches

IMAGENET = ImageShape(channels=3, size=224, classes=1000)
TRANSFER = ImageShape(channels=3, size=384, classes=200)
COUNTS = [  # LayerNorm or BatchNorm, more by weight norm, more by hidden BatchNorm; [C] of FACTS
    ("deit_tiny", 5_717_416, 20_736, 18_432),
    ("deit_small", 22_050_664, 41_472, 36_864),
    ("deit_base", 86_567_656, 82_944, 73_728),
    ("deit_large", 153_171_944, 110_592, 98_304),
    ("swin_tiny", 28_288_354, 39_744, 35_328),
    ("swin_small", 49_606_258, 81_216, 72_192),
]
TRANSFER_COUNTS = [  # parameters, multiply-adds that the Tiny-ImageNet source calls FLOPs
    ("vit_large", 303_895_752, 190.7e9),
    ("cait_s36", 68_058_632, 48.0e9),
    ("deit_base_distilled", 86_399_632, 55.5e9),
    ("swin_large", 195_505_916, 103.9e9),
]


def without_memory(name: str, image: ImageShape) -> nn.Module:
    """The model called `name`, whose weights take no memory and no time."""
    with torch.device("meta"):
        return variant(name).build(image)


def parameters(name: str, image: ImageShape = IMAGENET) -> int:
    return sum(parameter.numel() for parameter in without_memory(name, image).parameters())


@pytest.mark.parametrize(("name", "count", "by_wn", "by_hidden"), COUNTS)
def test_parameters_on_imagenet_are_those_computed_from_the_source(
    name: str, count: int, by_wn: int, by_hidden: int
) -> None:
    assert parameters(name) == parameters(f"{name}_bn") == parameters(f"{name}_lnbn") == count
    assert parameters(f"{name}_bn_wn") == parameters(f"{name}_lnbn_wn_relu6") == count + by_wn
    assert parameters(f"{name}_bn_ffnbn") == count + by_hidden


@pytest.mark.parametrize(("name", "count", "macs"), TRANSFER_COUNTS)
def test_the_transfer_set_has_its_parameters_and_multiply_adds(
    name: str, count: int, macs: float
) -> None:
    counted = profile(without_memory(name, TRANSFER), TRANSFER)
    assert counted.parameters == count
    assert counted.macs == pytest.approx(macs, rel=0.005)
    assert counted.blocks == counted.blocks_executed


@pytest.mark.parametrize("name", BACKBONES)
def test_the_real_size_trains_a_step(name: str) -> None:
    """Forward and backward with BatchNorm everywhere, to every block's maps."""
    image = ImageShape(channels=3, size=16, classes=3)
    with torch.device("meta"):
        model = variant(f"{name}_bn_wn_relu6").build(image, ZooSwitches(patch_size=4))
    model = model.to_empty(device="cpu")
    for module in model.modules():  # Swin's tables of positions and masks
        getattr(module, "init_non_persistent_buffers", lambda: None)()
    draw(model)
    loss = F.cross_entropy(model(images(2, image)), torch.tensor([0, 2]))
    loss.backward()
    assert torch.isfinite(loss)
    for path in anatomy(model).projections:
        for key, parameter in model.get_submodule(path).named_parameters():
            assert parameter.grad is not None, (path, key)
            assert torch.isfinite(parameter.grad).all(), (path, key)
            # A shift that a BatchNorm takes away again has no gradient but rounding.
            assert key == "bias" or parameter.grad.abs().max() > 0, (path, key)


def draw(model: nn.Module) -> None:
    """Fill `model` with weights that differ, quicker than by drawing each."""
    torch.manual_seed(0)
    drawn = 0.05 * torch.randn(1 << 16)
    for key, tensor in model.state_dict().items():
        if tensor.dim() > 1:
            flat = tensor.view(-1)
            flat.copy_(drawn.repeat(-(-len(flat) // len(drawn)))[: len(flat)])
        else:
            tensor.fill_(0 if "bias" in key or "mean" in key or "batches" in key else 1)


def timms_own(name: str, image: ImageShape, switches: ZooSwitches) -> nn.Module:
    """The model that timm makes under its own name, as small as ours."""
    backbone = BACKBONES[name]
    options: dict[str, Any] = {
        "patch_size": switches.patch_size,
        "embed_dim": switches.dim,
        "mlp_ratio": switches.mlp_ratio or 4.0,
    }
    if backbone.family == "swin":
        heads = tuple((switches.heads or 0) * 2**stage for stage in range(4))
        options |= {"depths": switches.depths, "num_heads": heads}
        options |= {"window_size": switches.window_size}
    else:
        options |= {"depth": switches.depths[0], "num_heads": switches.heads}
    return timm_module("models").create_model(
        backbone.timm_name,
        img_size=image.size,
        in_chans=image.channels,
        num_classes=image.classes,
        **options,
    )


@pytest.mark.parametrize("name", [name for name in SMALL if name in BACKBONES])
@pytest.mark.parametrize("training", [True, False])
def test_random_weights_of_timm_load_strictly_and_give_the_same_logits(
    name: str, training: bool
) -> None:
    image = ImageShape(channels=3, size=32, classes=7)
    chosen = variant(name)
    switches = chosen.resolved(small_switches(chosen), image)
    assert isinstance(switches, ZooSwitches)
    torch.manual_seed(3)
    theirs = timms_own(name, image, switches)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    ours = chosen.build(image, switches)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for model in (ours, theirs):
        model.train(training)
        for module in model.modules():  # timm's Swin drops whole paths where nothing else is said
            if type(module).__name__ == "DropPath":
                module.eval()
    logits = ours(images(3, image))
    assert logits.std() > 1e-2
    torch.testing.assert_close(logits, theirs(images(3, image)), rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("name", "size", "patch"),
    [("deit_tiny", 224, 16), ("deit_tiny", 64, 8), ("deit_tiny", 32, 4), ("deit_tiny", 28, 4),
     ("swin_tiny", 224, 4), ("swin_tiny", 64, 4), ("swin_tiny", 32, 2), ("swin_tiny", 28, 2),
     ("vit", 28, 7), ("vit", 32, 8), ("vit", 64, 16), ("cait_xxs24", 384, 16)],
)  # fmt: skip
def test_the_patch_follows_from_the_images(name: str, size: int, patch: int) -> None:
    assert variant(name).resolved(None, ImageShape(3, size, 10)).patch_size == patch


@pytest.mark.parametrize(("name", "size"), [("deit_tiny", 31), ("swin_tiny", 127), ("vit", 29)])
def test_images_that_no_patch_divides_are_refused(name: str, size: int) -> None:
    with pytest.raises(InputError, match=f"divides the image size {size}; choose another"):
        variant(name).resolved(None, ImageShape(3, size, 10))


@pytest.mark.parametrize(
    ("size", "window"),
    [(100, 7), (300, 7), (224, 7), (384, 12), (256, 8), (64, 8), (32, 8), (28, 7)],
)
def test_windows_tile_the_patches_as_published(size: int, window: int) -> None:
    switches = variant("swin_tiny").resolved(None, ImageShape(3, size, 10))
    assert isinstance(switches, ZooSwitches)
    assert switches.window_size == window


@pytest.mark.parametrize(
    ("name", "switches", "message"),
    [
        ("deit_tiny", {"window_size": 7}, "deit_tiny has no windows; leave out --set window_size"),
        ("deit_tiny", {"patch_size": 5}, "patch_size=5 does not divide the image size 32"),
        ("deit_tiny", {"dim": 100}, "dim=100 must be a multiple of heads=3"),
        ("deit_tiny", {"depth": "2,2"}, "depth=2,2 does not suit deit_tiny, as 12 would"),
        ("swin_tiny", {"depth": "2"}, "depth=2 does not suit swin_tiny, as 2,2,6,2 would"),
        ("swin_tiny", {"depth": "2,2,x,2"}, "depth=2,2,x,2 must be whole numbers"),
        ("swin_tiny", {"dropout": 0.1}, "swin_tiny is used without dropout"),
        ("timm:vit_tiny_patch16_224", {"window_size": 7}, "window_size cannot be set on timm:"),
        ("timm:vit_tiny_patch16_224", {"patch_size": 7}, "patch_size=7 does not divide"),
        ("timm:vit_small_patch14_dinov2", {}, "patch_size=14 does not divide the image size 32"),
        ("deit_tiny", {"depth": ""}, "depth= must be at least 1"),
        ("timm:test_vit4", {"patch_size": 8}, "is a RmsNorm; norms are chosen in place of"),
        ("timm:resnet18", {}, "a ResNet is no transformer that the switches apply to"),
        ("timm:eva02_tiny_patch14_224", {}, "is no transformer that the switches apply to"),
        ("timm:vit_small_patch16_dinov3_qkvb", {}, "no transformer that the switches apply to"),
    ],
)
def test_a_switch_that_does_not_apply_is_refused_with_the_reason(
    name: str, switches: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        variant(f"{name}_bn").build(ImageShape(3, 32, 10), ZooSwitches(**switches))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_both_heads_of_a_distilled_model_are_averaged_and_trained() -> None:
    model = small("deit_base_distilled")
    logits = model(images())
    assert logits.shape == (4, 10)
    logits.sum().backward()
    for head in ("head", "head_dist"):
        assert model.get_submodule(head).weight.grad.abs().max() > 0  # type: ignore[union-attr, operator]
