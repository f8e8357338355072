"""Divergence is the last event of a run, told with its place, and never an exception."""

import math

import pytest
import torch

from models.registry import ARTICLE
from objectives.data import SearchData
from objectives.metrics import Diverged, RungMetrics
from objectives.training import train
from tests.objectives.tiny import new_run


@pytest.mark.parametrize("model", ARTICLE)
def test_a_loss_that_is_not_finite_ends_the_run(model: str, subset: SearchData) -> None:
    run = new_run(subset, model=model, lr=1e30, rungs=(500,))
    events = list(train(run))
    last = events[-1]
    assert isinstance(last, Diverged)
    assert not any(isinstance(event, Diverged) for event in events[:-1])
    assert last.step == 2, "the first step starts from sound weights"
    assert last.images_seen == 40
    assert last.lr == 1e30
    assert last.best_val_accuracy == 0.0
    assert run.curve == []
    assert run.step == 2, "on a CPU no step is wasted on it"


def test_the_best_accuracy_before_is_kept(subset: SearchData) -> None:
    run = new_run(subset, rungs=(300, 600, 900), lr=5e-3)
    events = train(run)
    rungs = [next(events), next(events)]
    accuracies = [event.val_accuracy for event in rungs if isinstance(event, RungMetrics)]
    for group in run.optimizer.param_groups:
        group["lr"] = 1e30
    last = next(events)

    assert isinstance(last, Diverged)
    assert last.best_val_accuracy == max(accuracies) > 0.1
    assert (last.step, last.images_seen) == (32, 640)
    assert last.lr == 5e-3, "as configured"
    assert list(events) == []
    assert len(run.curve) == 2


def test_weights_that_are_not_finite_behind_a_sound_loss_end_the_run(subset: SearchData) -> None:
    run = new_run(subset, rungs=(20, 40))
    events = train(run)
    next(events)
    for moments in run.optimizer.state.values():
        moments["exp_avg"].fill_(math.inf)  # the last step's update overflows
    (last,) = list(events)
    assert isinstance(last, Diverged)
    assert (last.step, last.images_seen) == (2, 40)
    assert math.isfinite(float(run.segment.loss_sum)), "the loss came before the update"
    assert not all(bool(weight.isfinite().all()) for weight in run.model.parameters())


def test_a_validation_loss_that_is_not_finite_ends_the_run(subset: SearchData) -> None:
    run = new_run(subset, rungs=(20,), lr=1e12)  # weights of 1e12 overflow in the forward pass
    (last,) = list(train(run))
    assert isinstance(last, Diverged), last


def test_a_wild_but_finite_run_is_not_called_diverged(subset: SearchData) -> None:
    run = new_run(subset, lr=3.0)
    events = list(train(run))
    assert all(isinstance(event, RungMetrics) for event in events)
    assert max(float(weight.detach().abs().max()) for weight in run.model.parameters()) > 10.0


def test_the_first_bad_step_counts_where_a_device_is_asked_late(subset: SearchData) -> None:
    segment = new_run(subset).segment
    losses = [1.0, math.inf, 2.0, math.nan]
    for step, loss in enumerate(losses, start=7):
        segment.add(torch.tensor(loss), step)
    assert int(segment.bad_step) == 8
    assert segment.steps == 4
