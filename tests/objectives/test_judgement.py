"""How a model is judged at a rung: BatchNorm on recalibrated population statistics."""

from dataclasses import replace

import pytest
import torch

from models.registry import ARTICLE, variant
from objectives.data import SearchData
from objectives.evaluation import evaluate
from objectives.training import train
from tests.objectives.tiny import CONFIG, new_run, rungs


def test_batch_norm_models_are_judged_on_recalibrated_statistics(subset: SearchData) -> None:
    lagging = replace(CONFIG.switches, bn_momentum=0.001)
    run = new_run(subset, switches=lagging, lr=5e-3, rungs=(1_000,))
    (metrics,) = rungs(train(run))
    running = evaluate(run.model, subset.validation, 83)
    assert metrics.val_accuracy_running_stats == running.accuracy
    assert metrics.val_accuracy > metrics.val_accuracy_running_stats + 0.1
    assert metrics.val_loss < running.loss


def test_without_batch_norm_both_accuracies_are_one(subset: SearchData) -> None:
    for metrics in rungs(train(new_run(subset, model="vit"))):
        assert metrics.val_accuracy == metrics.val_accuracy_running_stats


@pytest.mark.parametrize("model", ARTICLE)
def test_the_weights_are_those_that_were_judged(model: str, subset: SearchData) -> None:
    run = new_run(subset, model=model, lr=5e-3)
    last = rungs(train(run))[-1]
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    weights = run.weights()
    torch.testing.assert_close(run.model.state_dict(), before, rtol=0.0, atol=0.0)

    fresh = variant(model).build(subset.shape, run.config.switches)
    fresh.load_state_dict(weights)
    found = evaluate(fresh, subset.validation, run.config.evaluation_batch_size)
    assert found.loss == pytest.approx(last.val_loss, rel=1e-6), "judged with BatchNorm folded"
    assert found.accuracy == last.val_accuracy
    assert not any(value.requires_grad for value in weights.values())
