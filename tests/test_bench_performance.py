"""`make bench`: its reference, its floor, its turns and its page."""

import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.registry import ARTICLE, variant
from models.switches import ImageShape, ViTSwitches, ZooSwitches
from objectives import article_loop
from objectives.data import SearchData
from tests.conftest import CPU

# A folder of scripts, not a package.
sys.path.append(str(Path(__file__).parents[1] / "bench"))

import contenders
import floor
import performance_page
from products import products_of
from turns import Ratio, Times, ratio, take_turns


@pytest.mark.parametrize("name", ARTICLE)
def test_the_article_model_is_ours_by_other_means(name: str, subset: SearchData) -> None:
    """The same parameters in the same order give the same logits."""
    torch.manual_seed(0)
    reference = article_loop.ArticleViT(name).double().eval()
    model = variant(name).build(subset.shape).double().eval()
    theirs = dict(reference.named_parameters())
    first = ("first_norm.", "to_tokens.", "token_norm.")
    rest = [value for key, value in theirs.items() if key.startswith(first)]
    rest += [
        value for key, value in theirs.items() if key.startswith(("branches.", "last_", "head"))
    ]
    own = {k: v for k, v in model.named_parameters() if k not in ("cls_token", "pos_embedding")}
    with torch.no_grad():
        for parameter, value in zip(own.values(), rest, strict=True):
            parameter.copy_(value)
        model.cls_token.copy_(theirs["cls_token"][0])  # type: ignore[operator]
        model.pos_embedding.copy_(theirs["positions"][0])  # type: ignore[operator]
        images = torch.rand(4, 1, 28, 28, dtype=torch.float64)
        torch.testing.assert_close(reference(images), model(images), rtol=0.0, atol=1e-12)


def test_the_article_loop_trains(subset: SearchData) -> None:
    losses = list(
        islice(
            article_loop.training(article_loop.ArticleViT("vitbn"), subset.train, 50, 1e-3, CPU), 30
        )
    )
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("merged", [False, True])
def test_the_floor_has_the_products_of_a_training_step(merged: bool, subset: SearchData) -> None:
    """But for the head, and for the small products of weights that merging needs."""
    way = "ours" if merged else "article"  # the counter does not know fused attention
    call = contenders.training_call(way, "vit", subset, CPU, steps=1)
    with FlopCounterMode(display=False) as step:
        call()
    with FlopCounterMode(display=False) as products:
        floor.floor(ViTSwitches(), 100, torch.float32, CPU, merged)()
    missing = 1.0 - products.get_total_flops() / step.get_total_flops()
    assert -0.001 < missing < (0.06 if merged else 0.01)


def test_contenders_take_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "AB"}
    times = take_turns(calls, 3, CPU)
    turns = ["".join(order[first : first + 2]) for first in range(0, len(order), 2)]
    assert len(turns) == 4, "one turn warms up"
    assert set(turns) == {"AB", "BA"}, "who comes first changes"
    assert [len(found.turns_s) for found in times.values()] == [3, 3]


def test_a_ratio_is_the_median_of_those_of_the_turns() -> None:
    slow, fast = Times((4.0, 30.0, 6.0)), Times((2.0, 10.0, 1.5))
    assert ratio(slow, fast) == Ratio(3.0, 2.5, 3.5)


def test_the_page_is_made_of_the_numbers(tmp_path: Path) -> None:
    ways = {name: [1.0, 1.0] for name in ("article", *contenders.WAYS)}
    ways["ours"] = [0.5, 0.5]
    floors = [
        f"floor {kind}{merged}" for kind in ("float32", "bf16") for merged in ("", ", merged")
    ]
    numbers = {
        "about": {
            "command": "make bench", "validation_images": 5_000,
            "date": "2026-01-01", "processor": "P", "threads": 2, "torch": "2", "batch_size": 100,
            "amount": {"steps": 10, "turns": 2},
        },
        "training": {"floor": {name: [0.25, 0.25] for name in floors}, "vitbn": ways},
        "evaluation": {"vitbn": {"article": [8.0, 8.0], "article, no_grad": [4.0, 4.0],
                                 "ours": [1.0, 1.0]}},
        "inference": {},
        "layouts": {"float32": {"1 × 2": [100.0], "2 × 1": [130.0]}},
        "peak_mib": {"training: ours": 600},
    }  # fmt: skip
    page = performance_page.page(numbers, tmp_path)
    assert (
        "| `vitbn` | ours | 50.0 | 2.00 (2.00–2.00) | 0.50 (0.50–0.50) | 0.50 (0.50–0.50) |" in page
    )
    assert "| `vitbn` | ours | 200.0 | 8.00 (8.00–8.00) | 4.00 (4.00–4.00) |" in page
    assert "| float32 | 2 × 1 | 130 | 1.30 (1.30–1.30) |" in page
    assert page.endswith("## GPU\n\nNot measured yet.\n")


def test_recorded_products_are_those_of_the_step() -> None:
    torch.manual_seed(0)
    model = variant("deit_tiny_bn").build(ImageShape(3, 16, 10), ZooSwitches(dim=24, depth="2"))
    images = torch.rand(2, 3, 16, 16)

    def step() -> None:
        model(images).sum().backward()

    replayed = products_of(step)
    found = []
    for call in (step, replayed):
        with FlopCounterMode(display=False) as counter:
            call()
        found.append(counter.get_total_flops())
    assert found[0] == found[1] > 0
