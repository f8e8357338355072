"""Normalisation batches in training: ghost batches, frozen statistics, how a run is judged."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.norms import TokenBatchNorm, batch_norms
from objectives.data import SearchData
from objectives.evaluation import evaluate
from objectives.metrics import Pause
from objectives.nbs import judge
from objectives.recipes import Recipe
from objectives.training import train
from tests.conftest import CPU
from tests.objectives.tiny import CONFIG, new_run, rungs

CHANNELS = 6


def norm_of(ghost: int | None) -> TokenBatchNorm:
    torch.manual_seed(3)
    norm = TokenBatchNorm(CHANNELS, momentum=0.3)
    norm.ghost = ghost
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.normal_()
    return norm


def tokens(images: int) -> Tensor:
    torch.manual_seed(4)
    # Groups with means of their own, or averaging their variances would go unnoticed.
    offsets = torch.arange(images).float()[:, None, None]
    return (torch.randn(images, 5, CHANNELS) + offsets).requires_grad_()


@pytest.mark.parametrize(
    ("size", "groups"),
    [(4, (4, 4, 4)), (4, (4, 4, 4, 2)), (4, (4, 4, 5)), (2, (2, 2, 2, 3)), (4, (5,))],
)
def test_ghost_batches_are_batch_norms_of_their_own(size: int, groups: tuple[int, ...]) -> None:
    images = sum(groups)
    ghost, x = norm_of(size), tokens(images)
    weights = torch.randn(x.shape)
    out = ghost(x)
    (out * weights).sum().backward()

    y = x.detach().clone().requires_grad_()
    parts = [(norm_of(None), group) for group in y.split(groups)]
    outs = [norm(group) for norm, group in parts]
    (torch.cat(outs) * weights).sum().backward()
    torch.testing.assert_close(out, torch.cat(outs))
    torch.testing.assert_close(x.grad, y.grad)
    for name in ("weight", "bias"):
        gradients = [norm.get_parameter(name).grad for norm, _ in parts]
        together = torch.stack([each for each in gradients if each is not None]).sum(dim=0)
        torch.testing.assert_close(ghost.get_parameter(name).grad, together)
    for name in ("running_mean", "running_var"):
        shares = [len(group) / images for _, group in parts]
        values = [norm.get_buffer(name) for norm, _ in parts]
        wanted = sum(share * value for share, value in zip(shares, values, strict=True))
        torch.testing.assert_close(ghost.get_buffer(name), wanted)
    assert int(ghost.get_buffer("num_batches_tracked")) == 1


def test_a_normalisation_batch_of_the_whole_batch_is_batch_norm_bit_for_bit(
    subset: SearchData,
) -> None:
    runs = [new_run(subset, recipe=Recipe(nbs=nbs), rungs=(100,)) for nbs in (None, 20)]
    for run in runs:
        list(train(run))
    first, second = (run.model.state_dict() for run in runs)
    torch.testing.assert_close(first, second, rtol=0.0, atol=0.0)


def test_smaller_normalisation_batches_train_another_model(subset: SearchData) -> None:
    runs = [new_run(subset, recipe=Recipe(nbs=nbs), rungs=(100,)) for nbs in (None, 5)]
    for run in runs:
        list(train(run))
    first, second = (run.model.get_parameter("mlp_head.weight") for run in runs)
    assert (first - second).abs().max() > 1e-3


def test_frozen_statistics_stay_bit_for_bit_also_in_a_run_that_goes_on(
    subset: SearchData,
) -> None:
    recipe, end = Recipe(freeze_bn=200 / 917), 500
    kept: list[dict[str, Tensor]] = []
    run = new_run(subset, recipe=recipe, rungs=(end,))
    state = b""
    for event in train(run, lambda: run.images_seen >= 300):
        if isinstance(event, Pause):
            kept.append({n: b.clone() for n, b in run.model.named_buffers()})
            assert run.is_frozen == (run.images_seen > 300)
            if run.images_seen == 400:
                file = io.BytesIO()
                torch.save(run.state_dict(), file)
                state = file.getvalue()
    before, first, *others = kept
    moved = [name for name in before if not torch.equal(before[name], first[name])]
    assert len(moved) == 3 * len(batch_norms(run.model))  # exact ones took the averages' place
    for buffers in others:
        torch.testing.assert_close(buffers, first, rtol=0.0, atol=0.0)

    restored = new_run(subset, recipe=recipe, rungs=(end,))
    restored.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    list(train(restored))
    assert restored.is_frozen
    for end_state in (run.model.state_dict(), restored.model.state_dict()):
        torch.testing.assert_close(
            {name: end_state[name] for name in first}, first, rtol=0.0, atol=0.0
        )
    torch.testing.assert_close(
        restored.model.state_dict(), run.model.state_dict(), rtol=0.0, atol=0.0
    )


def test_a_run_that_is_frozen_at_the_end_is_one_that_would_have_been_from_the_start(
    subset: SearchData,
) -> None:
    config = replace(CONFIG, recipe=Recipe(nbs=5), rungs=(917,), lr=3e-3)
    judged = judge(config, subset, CPU, freeze_last=0.5)
    assert judged is not None
    plain = new_run(subset, recipe=config.recipe, rungs=(459, 917), lr=3e-3)
    *_, metrics = rungs(train(plain))
    assert judged.three.val_population.loss == pytest.approx(metrics.val_loss, rel=1e-5)
    assert judged.running.accuracy == metrics.val_accuracy_running_stats
    frozen = new_run(subset, recipe=Recipe(nbs=5, freeze_bn=0.5), rungs=(459, 917), lr=3e-3)
    list(train(frozen))
    whole = evaluate(frozen.model, subset.validation, 83)
    assert judged.frozen is not None
    assert judged.frozen.loss == pytest.approx(whole.loss, rel=1e-6)
    assert judged.frozen.loss != judged.three.val_population.loss
    assert judged.leakage.population_jump == 0.0


def test_a_run_that_diverges_is_not_judged(subset: SearchData) -> None:
    broken = copy.deepcopy(subset)
    config = replace(CONFIG, lr=1e30, rungs=(917,))
    assert judge(config, broken, CPU) is None
    assert judge(config, broken, CPU, freeze_last=0.2) is None
