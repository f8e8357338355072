"""Optimiser, learning rate, micro-batches, clipping, averages: what a step of a recipe does."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.registry import variant
from objectives.data import SearchData
from objectives.datasets import MNIST_SHAPE
from objectives.execution import FAST, loss_of
from objectives.metrics import RungMetrics
from objectives.optimizing import optimizer_of, schedule_of
from objectives.recipes import Recipe
from objectives.run import Run
from objectives.steps import PlainStep, RecipeStep
from objectives.training import train
from tests.conftest import TINY
from tests.objectives.tiny import CONFIG, new_run, rungs

COSINE = Recipe(schedule="cosine", warmup=0.2)
OFF = torch.amp.GradScaler("cpu", enabled=False)


def rates(recipe: Recipe, **changes: Any) -> list[float]:
    """The learning rate of each step of a run."""
    config = replace(CONFIG, recipe=recipe, **changes)
    model = nn.Linear(2, 2)
    optimizer = optimizer_of(model, config, FAST)
    set_rate = schedule_of(optimizer, config)
    found = []
    for step in range(config.steps):
        if set_rate is not None:
            set_rate(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    found = rates(COSINE, rungs=(1_000,), batch_size=20, lr=1e-3)
    assert len(found) == 50
    assert found[0] == pytest.approx(1e-3 / 11)
    assert found[10] == max(found) == pytest.approx(1e-3)
    assert all(after > before for before, after in pairwise(found[:11]))
    assert found[30] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert found[-1] < 1e-5


def test_without_a_schedule_the_learning_rate_stays() -> None:
    assert set(rates(Recipe())) == {CONFIG.lr}
    warm = rates(Recipe(warmup=0.2), rungs=(1_000,))
    assert set(warm[10:]) == {CONFIG.lr}
    assert warm[0] < warm[5] < CONFIG.lr


def test_the_learning_rate_grows_with_the_batch_where_the_recipe_says_so() -> None:
    assert rates(Recipe(lr_batch=512), batch_size=64)[0] == pytest.approx(CONFIG.lr * 64 / 512)


def test_decay_leaves_out_norms_biases_and_tokens_and_is_decoupled() -> None:
    config = replace(CONFIG, recipe=Recipe(optimizer="adamw", weight_decay=0.5), lr=0.1)
    model = variant("vitbn").build(MNIST_SHAPE, TINY)
    optimizer = optimizer_of(model, config, FAST)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        is_left_out = parameter.ndim < 2 or name in ("cls_token", "pos_embedding")
        share = 1.0 if is_left_out else 1 - 0.1 * 0.5
        torch.testing.assert_close(parameter.detach(), before[name] * share)


def gradients(run: Run, step: PlainStep, pixels: Tensor, labels: Tensor) -> Tensor:
    step(pixels, labels)
    return torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("parts", [2, 3])
def test_micro_batches_give_the_gradient_of_the_batch_but_for_batch_norm(
    parts: int, subset: SearchData
) -> None:
    split = subset.train.first(20)
    batch = (split.all_pixels(), split.labels)
    differences = {}
    for model in ("vit", "vitbn"):
        found = []
        for accumulate in (1, parts):
            run = new_run(subset, model=model)
            found.append(
                gradients(run, RecipeStep(run.loss, run.optimizer, OFF, accumulate), *batch)
            )
        differences[model] = float((found[0] - found[1]).norm() / found[0].norm())
    assert differences["vit"] < 1e-5
    assert differences["vitbn"] > 1e-2, "each micro-batch has statistics of its own"


def test_a_gradient_is_clipped_and_its_own_norm_is_told(subset: SearchData) -> None:
    split = subset.train.first(20)
    run = new_run(subset)
    whole = gradients(run, PlainStep(run.loss, run.optimizer), split.all_pixels(), split.labels)
    run = new_run(subset)
    step = RecipeStep(run.loss, run.optimizer, OFF, clip=0.01)
    clipped = gradients(run, step, split.all_pixels(), split.labels)
    assert step.grad_norm is not None
    torch.testing.assert_close(step.grad_norm, whole.norm())
    assert float(clipped.norm()) == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), whole / whole.norm(), rtol=1e-4, atol=1e-6)
    last = rungs(train(new_run(subset, recipe=Recipe(clip=0.01))))[-1]
    assert last.grad_norm > 0.1, "the norm before it was clipped"


def test_label_smoothing_keeps_confidence_from_paying() -> None:
    pixels, labels = torch.zeros(4, 10), torch.zeros(4, dtype=torch.int64)
    pixels[:, 0] = 30.0
    assert loss_of(nn.Identity(), "float32")(pixels, labels) < 1e-6
    assert loss_of(nn.Identity(), "float32", 0.1)(pixels, labels) == pytest.approx(0.09 * 30)


def test_averaged_weights_are_judged_on_statistics_of_their_own(subset: SearchData) -> None:
    run = new_run(subset, recipe=Recipe(ema=0.9), lr=5e-3, rungs=(400,))
    seen: list[dict[str, Tensor]] = []
    end_step = run.end_step

    def noted(loss: Tensor) -> None:
        end_step(loss)
        seen.append({name: p.detach().clone() for name, p in run.model.named_parameters()})

    run.end_step = noted  # type: ignore[method-assign]
    (metrics,) = rungs(train(run))
    average = seen[0]
    for step, weights in enumerate(seen[1:], start=2):
        decay = min(1 - step ** (-2 / 3), 0.9)  # grows with the steps, as timm's
        average = {n: decay * average[n] + (1 - decay) * weights[n] for n in average}
    for name, parameter in run.judged_model.named_parameters():
        torch.testing.assert_close(parameter.detach(), average[name], rtol=1e-4, atol=1e-6)
    assert metrics.val_accuracy_raw_weights is not None
    kept = run.weights()
    torch.testing.assert_close(kept["mlp_head.weight"], average["mlp_head.weight"])
    with run.judged() as judged:
        again = {key: value.clone() for key, value in judged.state_dict().items()}
    torch.testing.assert_close(kept, again)
    raw = run.judged_model.state_dict()["transformer.norm.running_mean"]
    assert not torch.allclose(raw, kept["transformer.norm.running_mean"]), "estimated anew"


def test_checkpointed_blocks_train_alike_and_keep_less(subset: SearchData) -> None:
    curves, kept = [], []
    for recipe in (Recipe(), Recipe(checkpointing=True)):
        run = new_run(subset, recipe=recipe)
        split, sizes = subset.train.first(20), [0]

        def note(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes[0] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            run.loss(split.all_pixels(), split.labels)
        kept.append(sizes[0])
        curves.append(rungs(train(new_run(subset, recipe=recipe))))
    assert kept[1] < 0.6 * kept[0]
    for mine, theirs in zip(*curves, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-6)
        assert mine.val_accuracy_running_stats == theirs.val_accuracy_running_stats, (
            "the second pass must leave running averages alone"
        )


def test_half_precision_scales_its_loss_and_survives_an_overflow(subset: SearchData) -> None:
    run = new_run(subset, precision="fp16", rungs=(400,))
    before = run.model.state_dict()["mlp_head.weight"].clone()
    usual = run.scaler.state_dict()
    # So large that the first gradients are infinite: those steps are left out.
    run.scaler.load_state_dict({**usual, "scale": 2.0**26})
    rungs(train(run))
    assert 1.0 < run.scaler.get_scale() < 2.0**26
    assert not torch.equal(run.model.state_dict()["mlp_head.weight"], before)
    plain = new_run(subset, rungs=(400,))
    half = new_run(subset, precision="fp16", rungs=(400,))
    losses = [rungs(train(one))[0].train_loss for one in (plain, half)]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert losses[0] != losses[1]


def test_the_time_and_the_epochs_to_a_target_are_noted_once(subset: SearchData) -> None:
    curve: list[RungMetrics] = rungs(train(new_run(subset, target=0.12, lr=5e-3)))
    reached = next(m for m in curve if m.val_accuracy >= 0.12)
    assert reached.epochs_to_target == reached.images_seen / CONFIG.train_images
    assert reached.time_to_target_s == reached.train_time_s
    assert curve[-1].time_to_target_s == reached.time_to_target_s
    assert all(m.epochs_to_target is None for m in curve if m.rung < reached.rung)
    never = rungs(train(new_run(subset, target=1.0)))
    assert never[-1].time_to_target_s is None
