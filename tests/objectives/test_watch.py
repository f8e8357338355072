"""A watch says where a run stopped being finite, and changes nothing of it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.registry import ARTICLE, variant
from objectives.data import SearchData
from objectives.metrics import Diverged, Event, Pause, RungMetrics
from objectives.nonfinite import MODEL, UPDATE, first_non_finite
from objectives.notation import run_notation
from objectives.run import Run
from objectives.training import train
from objectives.watch import Watch
from tests.models.zoo import SMALL, small_switches
from tests.objectives.tiny import DROPOUT, new_run, untimed

HUGE = 1e38  # times a few it is beyond float32
FC1, FC2 = "transformer.layers.1.1.net.1", "transformer.layers.1.1.net.4"  # of vit's second block


def watched(run: Run) -> Iterator[Event]:
    return train(run, watch=Watch())


def end(events: Iterator[Event]) -> Diverged:
    *_, last = events
    assert isinstance(last, Diverged)
    return last


def set_weight(run: Run, path: str, value: float) -> None:
    with torch.no_grad():
        run.model.get_parameter(f"{path}.weight").fill_(value)


def test_a_layer_that_overflows_is_named(subset: SearchData) -> None:
    run = new_run(subset, model="vit", rungs=(40, 400))
    events = watched(run)
    assert isinstance(next(events), RungMetrics)
    set_weight(run, FC2, HUGE)
    last = end(events)
    assert (last.layer, last.stage, last.step) == (FC2, "output", 3)


@pytest.mark.parametrize("name", [*SMALL, "deit_tiny_prepbn_wn_relu6", "swin_tiny_un"])
def test_each_family_is_watched(name: str, subset: SearchData) -> None:
    patch = {"patch_size": 7} if name.startswith("timm:") else {}
    switches = small_switches(variant(name), **patch)
    run = new_run(subset, model=name, switches=switches, rungs=(60,))
    linear = [(p, m) for p, m in run.model.named_modules() if isinstance(m, nn.Linear)]
    path, module = linear[-2]
    calls = []

    def overflow(*told: Any) -> Tensor:
        calls.append(path)
        return told[-1] * HUGE * HUGE if len(calls) > 1 else told[-1]

    module.register_forward_hook(overflow)
    last = end(watched(run))
    assert (last.layer, last.step) == (path, 2)
    assert last.grad_norm_before is not None


@pytest.mark.parametrize("model", ARTICLE)
def test_a_rate_that_is_much_too_high_ends_in_the_forward_pass(
    model: str, subset: SearchData
) -> None:
    run = new_run(subset, model=model, lr=1e30, rungs=(500,))
    last = end(watched(run))
    assert last.step == 2
    assert last.layer is not None
    assert run.model.get_submodule(last.layer) is not None
    twin = new_run(subset, model=model, lr=1e-3, rungs=(20,))
    (first,) = train(twin)
    assert isinstance(first, RungMetrics)
    assert last.grad_norm_before == first.grad_norm, "the first step's, whatever the rate"


def test_a_gradient_that_overflows_is_told_from_the_loss_backwards(subset: SearchData) -> None:
    run = new_run(subset, model="vit", rungs=(20, 40, 60))
    events = watched(run)
    before = [next(events), next(events)][1]
    assert isinstance(before, RungMetrics)
    with torch.no_grad():  # nothing goes through these two but the gradient of the first
        for parameter in run.model.get_submodule(FC1).parameters():
            parameter.zero_()
    set_weight(run, FC2, HUGE)
    last = end(events)
    assert math.isfinite(float(run.segment.loss_sum))
    assert (last.layer, last.stage, last.step) == (FC1, "gradient", 3)
    assert last.grad_norm_before == before.grad_norm


def test_what_began_in_the_step_before_is_told_of_that(subset: SearchData) -> None:
    """Adam makes weights of a gradient that is not finite; the next loss shows it."""
    run = new_run(subset, model="vit", rungs=(40, 400))
    events = watched(run)
    first = next(events)
    parameter = run.model.get_parameter(f"{FC1}.weight")
    parameter.register_hook(lambda gradient: gradient * math.inf)
    last = end(events)
    assert (last.layer, last.stage, last.step) == (FC1, "gradient", 4)
    assert isinstance(first, RungMetrics)
    assert last.grad_norm_before == first.grad_norm


def test_gradients_that_have_no_norm_together_are_the_models() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))

    def loss(pixels: Tensor, _: Tensor) -> Tensor:
        return 1.8e19 * model(pixels).sum()

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    found = first_non_finite(model, loss, torch.ones(1, 1), torch.ones(1))
    assert found is not None
    assert (found.layer, found.stage) == (MODEL, "gradient")


@pytest.mark.parametrize("rungs", [(20, 40), (20, 400)], ids=["at a rung", "between rungs"])
def test_an_update_that_overflows_is_the_optimizers(
    rungs: tuple[int, int], subset: SearchData
) -> None:
    run = new_run(subset, rungs=rungs)
    events = watched(run)
    next(events)
    for moments in run.optimizer.state.values():
        moments["exp_avg"].fill_(math.inf)
    last = end(events)
    assert (last.layer, last.stage) == (UPDATE.layer, "update")
    assert last.step == (2 if rungs[1] == 40 else 3)


def test_sound_weights_that_overflow_at_a_rung_are_looked_through(subset: SearchData) -> None:
    run = new_run(subset, model="vit", rungs=(20,), lr=1e12)
    last = end(watched(run))
    assert (last.step, last.stage) == (1, "output")
    assert last.layer not in (None, UPDATE.layer)


def test_what_only_an_evaluation_shows_is_found_there(subset: SearchData) -> None:
    run = new_run(subset, model="vit", rungs=(20,))
    head = run.model.get_submodule("mlp_head")
    head.register_forward_hook(lambda *told: told[-1] if told[0].training else told[-1] * math.inf)
    last = end(watched(run))
    assert (last.layer, last.stage, last.step) == ("mlp_head", "output", 1)
    assert head.training


def test_the_last_finite_gradient_is_kept_where_a_device_is_asked_late(subset: SearchData) -> None:
    watch, run = Watch(), new_run(subset)
    norms = []
    for value in (3.0, 4.0, math.inf, math.nan):
        for parameter in run.model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        watch.after(run)
        norms.append(watch.grad_norm(run))
    count = sum(parameter.numel() for parameter in run.model.parameters())
    assert norms == pytest.approx([v * math.sqrt(count) for v in (3.0, 4.0, 4.0, 4.0)])
    assert watch.origin(run, 1) is None, "it has kept no step"


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "vit"},
        {"model": "vitbn", "switches": DROPOUT},
        {"model": "deit_tiny_prepbn_wn"},
        {"model": "deit_tiny_un", "precision": "bf16", "rungs": (20, 40)},
    ],
    ids=lambda changes: changes["model"],
)
def test_a_watch_changes_no_number(changes: dict[str, Any], subset: SearchData) -> None:
    if changes["model"].startswith("deit"):
        changes = {**changes, "switches": small_switches(variant(changes["model"]))}
    plain, seen = new_run(subset, **changes), new_run(subset, **changes)
    torch.manual_seed(5)
    expected = [untimed(event) for event in train(plain)]
    torch.manual_seed(5)
    assert [untimed(event) for event in watched(seen)] == expected
    torch.testing.assert_close(
        seen.model.state_dict(), plain.model.state_dict(), rtol=0.0, atol=0.0
    )


def test_looking_for_the_layer_leaves_the_run_as_it_is(subset: SearchData) -> None:
    def diverge(train_it: Callable[[Run], Iterator[Event]]) -> tuple[dict[str, Tensor], Tensor]:
        run = new_run(subset, switches=DROPOUT, rungs=(20, 400))
        events = train_it(run)
        next(events)
        set_weight(run, "mlp_head", HUGE)
        end(events)
        return run.model.state_dict(), torch.get_rng_state()

    (plain, random), (seen, same) = diverge(train), diverge(watched)
    torch.testing.assert_close(seen, plain, rtol=0.0, atol=0.0, equal_nan=True)
    assert torch.equal(random, same)


def test_the_step_is_made_again_with_the_same_masks(subset: SearchData) -> None:
    """A dropout that alone decides whether a step is finite is met again."""
    run = new_run(subset, model="vit", switches=replace(DROPOUT, emb_dropout=0.9), rungs=(60,))
    masks: list[Tensor] = []
    dropout = run.model.get_submodule("dropout")
    dropout.register_forward_hook(lambda *told: masks.append(told[-1].detach() == 0))
    set_weight(run, "mlp_head", HUGE)
    last = end(watched(run))
    assert last.layer == "mlp_head"
    assert len(masks) == 2
    assert torch.equal(masks[0], masks[1])


def test_a_run_is_watched_anew_after_an_interruption(subset: SearchData) -> None:
    run = new_run(subset, model="vit", rungs=(60, 400))
    events = train(run, lambda: run.images_seen == 80, Watch())
    state = next(run.state_dict() for event in events if isinstance(event, Pause))
    again = new_run(subset, model="vit", rungs=(60, 400))
    again.load_state_dict(state)
    set_weight(again, FC2, HUGE)
    last = end(watched(again))
    assert (last.layer, last.step) == (FC2, 5)
    assert last.grad_norm_before == again.curve[0].grad_norm, "the last that is known"
    best = again.curve[0].val_accuracy
    assert (last.best_val_accuracy, last.best_epoch) == (best, 60 / 917)


def test_a_pause_goes_on_under_the_same_watch(subset: SearchData) -> None:
    run = new_run(subset, model="vit", rungs=(400,))
    for event in train(run, lambda: True, watch := Watch()):
        if isinstance(event, Pause) and event.images_seen == 60:
            known = watch.grad_norm(run)
            set_weight(run, FC2, HUGE)
    assert isinstance(event, Diverged)
    assert (event.layer, event.step, event.grad_norm_before) == (FC2, 4, known)


def test_without_a_watch_the_layer_is_not_known(subset: SearchData) -> None:
    run = new_run(subset, model="vit", rungs=(40, 400))
    events = train(run)
    first = next(events)
    set_weight(run, FC2, HUGE)
    last = end(events)
    assert isinstance(first, RungMetrics)
    assert (last.layer, last.grad_norm_before) == (None, first.grad_norm)
    assert last.best_epoch == 40 / 917, "the rung's"


def test_runs_are_told_as_the_blog_tells_them() -> None:
    nan = Diverged(step=71, images_seen=7_100, lr=0.1, best_val_accuracy=0.0)
    late = replace(nan, best_val_accuracy=0.807, best_epoch=234.0)
    assert run_notation(0.8025, None, 1_000) == "80.25"
    assert run_notation(0.1, nan, 1_000) == "NaN (epoch 8)"
    assert run_notation(0.1, replace(nan, images_seen=8_023), 1_000) == "NaN (epoch 8)", (
        "it began there"
    )
    assert run_notation(0.1, late, 1_000) == "80.7 @ 234, NaN"
    assert run_notation(None, None, 1_000) == ""
