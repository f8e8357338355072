"""Shapes, positions, pooling and dropout of the article's family."""

import math

import pytest
import torch

from models.registry import ARTICLE
from models.switches import ImageShape, ViTSwitches
from models.vit import ViT, sine_positions
from objectives.datasets import MNIST_SHAPE
from tests.conftest import TINY


def build(name: str = "vit", **changes: object) -> ViT:
    """A small model in evaluation mode."""
    torch.manual_seed(0)
    switches = ViTSwitches(**{"dim": 16, "depth": 2, "heads": 2, **changes})  # type: ignore[arg-type]
    return ARTICLE[name](MNIST_SHAPE, switches).eval()


@pytest.mark.parametrize("name", ARTICLE)
def test_images_become_one_row_of_logits_each(name: str) -> None:
    shape = ImageShape(channels=3, size=14, classes=7)
    assert ARTICLE[name](shape, TINY)(torch.rand(5, 3, 14, 14)).shape == (5, 7)


def test_sine_positions_follow_the_formula() -> None:
    table = sine_positions(17, 64)
    assert table.shape == (17, 64)
    assert table.dtype == torch.float32
    for position, k in [(0, 1), (1, 1), (5, 3), (16, 32), (16, 1)]:
        angle = position * 10_000 ** (-k / 32)
        assert float(table[position, k - 1]) == pytest.approx(math.sin(angle), abs=1e-6)
        assert float(table[position, 32 + k - 1]) == pytest.approx(math.cos(angle), abs=1e-6)
    assert float(table[1, 31]) == pytest.approx(1e-4, rel=1e-6)


def test_sine_positions_are_a_buffer_and_learned_ones_a_parameter() -> None:
    sine, learned = build(pos_emb="pe1d"), build(pos_emb="learn")
    assert "pos_embedding" in dict(sine.named_buffers())
    assert "pos_embedding" not in dict(sine.named_parameters())
    assert "pos_embedding" in dict(learned.named_parameters())
    torch.testing.assert_close(sine.pos_embedding, sine_positions(17, 16))


@pytest.mark.parametrize("pos_emb", ["learn", "pe1d"])
def test_the_model_sees_where_a_patch_stands(pos_emb: str) -> None:
    model = build(pos_emb=pos_emb)
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        here, moved = model(images), model(images.roll(7, dims=3))
        model.pos_embedding.zero_()
        lost_here, lost_moved = model(images), model(images.roll(7, dims=3))
    assert (here - moved).abs().max() > 1e-3
    torch.testing.assert_close(lost_here, lost_moved, rtol=0.0, atol=1e-5)


def test_pooling_reads_the_cls_token_or_the_mean_of_all_tokens() -> None:
    models = {pool: build(pool=pool) for pool in ("cls", "mean")}
    images, tokens = torch.rand(3, 1, 28, 28), []
    for model in models.values():
        model.transformer.register_forward_hook(lambda _module, _input, out: tokens.append(out))
    logits = {pool: model(images) for pool, model in models.items()}

    torch.testing.assert_close(*tokens)  # the same seed: the same weights
    heads = {pool: model.mlp_head for pool, model in models.items()}
    torch.testing.assert_close(logits["cls"], heads["cls"](tokens[0][:, 0]))
    torch.testing.assert_close(logits["mean"], heads["mean"](tokens[1].mean(dim=1)))


@pytest.mark.parametrize("switch", ["dropout", "emb_dropout"])
@pytest.mark.parametrize("name", ARTICLE)
def test_dropout_acts_in_training_only(name: str, switch: str) -> None:
    model = build(name, **{switch: 0.5})
    images = torch.rand(8, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(model(images), model(images), rtol=0.0, atol=0.0)
        model.train()
        assert (model(images) - model(images)).abs().max() > 1e-2
