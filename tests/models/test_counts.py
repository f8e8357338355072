"""The article's trio: parameters, norms and multiply-adds that were published or computed."""

import pytest
from torch import nn

from models.norms import TokenBatchNorm, batch_norms
from models.profile import profile
from models.registry import ARTICLE, variant
from models.switches import ImageShape, ViTSwitches
from models.vit import ViT

MNIST = ImageShape(channels=1, size=28, classes=10)
COUNTS = [  # name, parameters, BatchNorms, LayerNorms
    ("vit", 893_164, 0, 15),
    ("vitbnffn", 893_932, 6, 9),
    ("vitbn", 893_932, 15, 0),
]


def build(name: str, **changes: object) -> ViT:
    """The model called `name` for MNIST, with the article's switches except `changes`."""
    return ARTICLE[name](MNIST, ViTSwitches(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "parameters", "batch", "layer"), COUNTS)
def test_each_variant_has_the_known_parameters_and_norms(
    name: str, parameters: int, batch: int, layer: int
) -> None:
    model = build(name)
    kinds = [type(module) for module in model.modules()]

    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert kinds.count(TokenBatchNorm) == len(batch_norms(model)) == batch
    assert kinds.count(nn.LayerNorm) == layer
    assert variant(name).uses_batch_norm == bool(batch)


def test_the_list_of_models_is_the_one_counted_here() -> None:
    assert list(ARTICLE) == [name for name, *_ in COUNTS]


@pytest.mark.parametrize("name", ARTICLE)
def test_the_profile_counts_what_is_executed(name: str) -> None:
    model = build(name)
    counted = profile(model, MNIST)

    assert counted.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert counted.macs == 16_866_944
    assert counted.blocks == counted.blocks_executed == 6


def test_multiply_adds_follow_from_the_shapes() -> None:
    dim, depth, heads, dim_head, hidden, tokens = 32, 3, 2, 16, 48, 4 + 1
    inner = heads * dim_head
    block = tokens * (dim * 3 * inner + inner * dim + 2 * dim * hidden)
    attention = 2 * heads * tokens * tokens * dim_head
    by_hand = 4 * 14 * 14 * dim + depth * (block + attention) + dim * 10

    model = build(
        "vitbn", patch_size=14, dim=dim, depth=depth, heads=heads, dim_head=dim_head, mlp_dim=hidden
    )
    assert profile(model, MNIST).macs == by_hand


def test_sine_positions_save_the_learned_parameters() -> None:
    learned = profile(build("vit"), MNIST).parameters
    assert profile(build("vit", pos_emb="pe1d"), MNIST).parameters == learned - 17 * 64


@pytest.mark.parametrize(
    ("channels", "size", "classes", "patch_size"), [(3, 32, 100, 8), (1, 28, 2, 28)]
)
def test_models_take_any_image_shape(
    channels: int, size: int, classes: int, patch_size: int
) -> None:
    image = ImageShape(channels, size, classes)
    model = ARTICLE["vitbn"](image, ViTSwitches(patch_size=patch_size, depth=1))
    assert model.mlp_head.out_features == classes
    assert profile(model, image).blocks_executed == 1
