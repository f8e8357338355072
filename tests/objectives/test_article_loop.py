"""The article's times: its loop with all blocks, and with the one that ran."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from models.errors import InputError
from models.registry import variant
from models.switches import ImageShape
from objectives import speed, stretch
from objectives.article_contenders import article_contenders
from objectives.article_loop import BLOCKS, ArticleViT, evaluation
from objectives.contenders import Work, entrant
from objectives.data import SearchData
from objectives.speed import Goal, race
from tests.conftest import CPU

NAMES = ("vit", "vitbn_oneblock")
QUICK = Goal(half_width=0.5, most_rounds=6, sample_s=0.001, limit_s=0.0, kernel_s=0.05)


def test_one_block_is_what_the_later_ones_do_not_touch() -> None:
    torch.manual_seed(0)
    model = ArticleViT("vit", blocks_run=1).eval()
    images = torch.rand(4, 1, 28, 28)
    before = model(images)
    with torch.no_grad():
        for branch in model.branches[2:]:
            for parameter in branch.parameters():
                parameter.zero_()
    torch.testing.assert_close(model(images), before)
    assert len(model.branches) == 2 * BLOCKS


@pytest.mark.parametrize("work", ["train", "eval"])
def test_blocks_are_counted_while_the_articles_loop_is_timed(
    work: Work, subset: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretch, "WARM_UP_S", 0.01)
    monkeypatch.setattr(stretch, "WARM_UP_CALLS", 1)
    monkeypatch.setattr(speed, "MOST_ATTEMPTS", 1)
    entrants = [entrant(variant(name), None, subset) for name in NAMES]
    found = race(partial(article_contenders, entrants, work, subset, 10, CPU), CPU, QUICK)
    assert [each.blocks_executed for each in found.timings] == [BLOCKS, 1]
    assert {each.images for each in found.timings} == {10 if work == "train" else 83}


def test_the_articles_evaluation_is_an_accuracy(subset: SearchData) -> None:
    assert 0.0 <= evaluation(ArticleViT("vitbn"), subset.validation, CPU) < 0.5


def test_other_images_are_refused(subset: SearchData) -> None:
    other = replace(subset, shape=ImageShape(3, 32, 10))
    with pytest.raises(InputError, match="takes 28×28 pixels in one channel and 10 classes"):
        article_contenders([], "train", other, 10, CPU)
