"""A run reports its rungs, learns, repeats itself exactly, and leaves its data alone."""

import math

import pytest
import torch

from models.registry import ARTICLE
from objectives.data import SearchData
from objectives.starting import start
from objectives.training import train
from tests.conftest import CPU
from tests.objectives.tiny import CONFIG, DROPOUT, new_run, rungs, untimed


@pytest.mark.parametrize("batch_size", [20, 32, 50])
def test_metrics_come_at_the_first_step_that_reaches_a_rung(
    subset: SearchData, batch_size: int
) -> None:
    run = new_run(subset, batch_size=batch_size)
    curve = rungs(train(run))

    assert tuple(metrics.rung for metrics in curve) == run.config.rungs == (50, 110, 200)
    for metrics in curve:
        assert metrics.rung <= metrics.images_seen < metrics.rung + batch_size
        assert metrics.images_seen % batch_size == 0
        assert metrics.epoch == metrics.images_seen / 917
    assert run.curve == curve
    assert run.images_seen == curve[-1].images_seen


def test_one_step_may_reach_two_rungs(subset: SearchData) -> None:
    few = subset.limited(200)
    run = new_run(few, batch_size=120, rungs=(25, 100, 400), train_images=200)
    curve = rungs(train(run))
    assert [metrics.rung for metrics in curve] == [25, 100, 400]
    assert curve[0].images_seen == curve[1].images_seen == 120
    assert all(math.isfinite(metrics.train_loss) for metrics in curve)


def test_every_metric_is_there_and_makes_sense(subset: SearchData) -> None:
    run = new_run(subset)
    curve = rungs(train(run))
    for metrics in curve:
        assert 0 < metrics.train_loss < 10
        assert 0 < metrics.val_loss < 10
        assert 0 <= metrics.val_accuracy <= metrics.val_top5_accuracy <= 1
        assert metrics.grad_norm > 0
        assert metrics.val_time_s > 0
    assert curve[0].train_images_per_s is None, "three steps are all warm-up"
    assert all((metrics.train_images_per_s or 0) > 0 for metrics in curve[1:])
    times = [metrics.train_time_s for metrics in curve]
    assert 0 < times[0] < times[1] < times[2] == run.train_time_s


def test_the_training_loss_is_the_mean_since_the_last_rung(subset: SearchData) -> None:
    each_step = rungs(train(new_run(subset, rungs=tuple(range(20, 121, 20)))))
    first, second = rungs(train(new_run(subset, rungs=(60, 120))))
    losses = [metrics.train_loss for metrics in each_step]
    assert first.train_loss == pytest.approx(sum(losses[:3]) / 3)
    assert second.train_loss == pytest.approx(sum(losses[3:]) / 3)
    assert second.grad_norm == each_step[-1].grad_norm


@pytest.mark.parametrize("model", ARTICLE)
def test_a_short_run_learns(model: str, subset: SearchData) -> None:
    run = new_run(subset, model=model, lr=5e-3, batch_size=32, rungs=(917, 3_600))
    curve = rungs(train(run))
    assert curve[-1].train_loss < 0.7 * curve[0].train_loss
    assert curve[-1].val_loss < curve[0].val_loss
    assert curve[-1].val_accuracy > 0.3, "chance is 0.1"


@pytest.mark.parametrize("model", ARTICLE)
def test_the_same_config_gives_the_same_numbers(model: str, subset: SearchData) -> None:
    first = new_run(subset, model=model, switches=DROPOUT)
    one = [untimed(event) for event in train(first)]
    torch.rand(17)  # whatever else the process does
    second = new_run(subset, model=model, switches=DROPOUT)
    assert [untimed(event) for event in train(second)] == one
    torch.testing.assert_close(
        second.model.state_dict(), first.model.state_dict(), rtol=0.0, atol=0.0
    )


def test_looking_at_more_rungs_does_not_change_the_training(subset: SearchData) -> None:
    seldom, often = new_run(subset, rungs=(200,)), new_run(subset, rungs=(20, 60, 100, 200))
    (last,) = rungs(train(seldom))
    *_, often_last = rungs(train(often))
    assert often_last.val_loss == last.val_loss
    torch.testing.assert_close(
        often.model.state_dict(), seldom.model.state_dict(), rtol=0.0, atol=0.0
    )


def test_another_seed_gives_other_weights_and_another_order(subset: SearchData) -> None:
    runs = [new_run(subset, seed=seed) for seed in (0, 1)]
    heads = [run.model.state_dict()["mlp_head.weight"] for run in runs]
    assert not torch.equal(*heads)
    losses = [[event.train_loss for event in rungs(train(run))] for run in runs]
    assert losses[0] != losses[1]


def test_training_leaves_the_data_alone(subset: SearchData) -> None:
    held = (subset.train, subset.validation)
    before = [(split.images.clone(), split.labels.clone()) for split in held]
    list(train(new_run(subset)))
    for split, (images, labels) in zip(held, before, strict=True):
        assert torch.equal(split.images, images)
        assert torch.equal(split.labels, labels)


def test_only_the_configured_training_images_are_seen(subset: SearchData) -> None:
    few = subset.limited(40)
    beyond = subset.train.images.clone()
    beyond[40:] = 255
    spoiled = SearchData(
        subset.shape, type(few.train)(beyond, subset.train.labels), subset.validation, "other"
    )
    config = {"train_images": 40, "recalibration_images": 40, "rungs": (100,)}
    one = [untimed(event) for event in train(new_run(few, **config))]
    assert [untimed(event) for event in train(new_run(spoiled, **config))] == one


def test_a_start_keeps_float32_products_in_float32(subset: SearchData) -> None:
    torch.set_float32_matmul_precision("medium")
    start(CONFIG, subset, CPU)
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_start_flushes_denormals(subset: SearchData) -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormals")
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    assert float((tiny * 1.0)[0]) > 0.0
    start(CONFIG, subset, CPU)
    assert float((tiny * 1.0)[0]) == 0.0
