"""A run that was saved goes on bit for bit, from a rung and from a pause in between."""

import io
from typing import Any

import pytest
import torch

from models.registry import ARTICLE
from objectives.data import SearchData
from objectives.errors import StateError
from objectives.metrics import Diverged, Event, Pause
from objectives.run import Run
from objectives.training import train
from tests.objectives.tiny import DROPOUT, new_run, untimed


def through_a_file(run: Run) -> dict[str, Any]:
    """The run's state as a checkpoint gives it back; nothing but tensors and plain values."""
    file = io.BytesIO()
    torch.save(run.state_dict(), file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


def saved_at(run: Run, where: str) -> dict[str, Any]:
    """The state at the second rung, or at a pause two steps beyond it."""
    for event in train(run, lambda: run.images_seen == 160):
        if where == "rung" and len(run.curve) == 2:
            return through_a_file(run)
        if isinstance(event, Pause):
            return through_a_file(run)
    raise AssertionError("the run has ended")


def test_a_run_knows_how_many_processes_have_trained_it(subset: SearchData) -> None:
    run = new_run(subset)
    assert run.processes == 1
    run.load_state_dict({**through_a_file(run), "processes": 2})
    assert run.processes == 2
    assert through_a_file(run)["processes"] == 2


@pytest.mark.parametrize("where", ["rung", "pause"])
@pytest.mark.parametrize("model", ARTICLE)
def test_a_restored_run_goes_on_bit_for_bit(model: str, where: str, subset: SearchData) -> None:
    changes: dict[str, Any] = {"model": model, "switches": DROPOUT, "batch_size": 40}
    changes["rungs"] = (50, 110, 250, 1_000)  # the last one in the second epoch
    whole = new_run(subset, **changes)
    curve = [untimed(event) for event in train(whole)]

    state = saved_at(new_run(subset, **changes), where)
    torch.manual_seed(1234)
    restored = new_run(subset, **changes)
    restored.load_state_dict(state)
    assert restored.images_seen == (120 if where == "rung" else 160)
    rest = [untimed(event) for event in train(restored)]

    assert rest == curve[2:]
    assert [untimed(metrics) for metrics in restored.curve] == curve
    torch.testing.assert_close(
        restored.model.state_dict(), whole.model.state_dict(), rtol=0.0, atol=0.0
    )
    torch.testing.assert_close(
        restored.optimizer.state_dict(), whole.optimizer.state_dict(), rtol=0.0, atol=0.0
    )


def test_training_time_is_carried_over(subset: SearchData) -> None:
    run = new_run(subset)
    state = saved_at(run, "pause")
    restored = new_run(subset)
    restored.load_state_dict(state)
    assert restored.train_time_s == run.train_time_s > 0
    assert restored.curve == run.curve
    list(train(restored))
    assert restored.train_time_s > run.train_time_s


def test_a_finished_run_has_nothing_left_to_do(subset: SearchData) -> None:
    run = new_run(subset)
    list(train(run))
    restored = new_run(subset)
    restored.load_state_dict(through_a_file(run))
    assert list(train(restored)) == []
    assert restored.curve == run.curve


def test_a_bad_loss_before_a_save_is_remembered(subset: SearchData) -> None:
    """A device that is not asked at each step learns of it at the rung, maybe after a restart."""
    run = new_run(subset)
    next(iter(train(run, lambda: True)))
    run.segment.add(torch.tensor(float("nan")), step=1)
    restored = new_run(subset)
    restored.load_state_dict(through_a_file(run))
    events: list[Event] = list(train(restored))
    assert [type(event) for event in events] == [Diverged]
    assert isinstance(events[0], Diverged)
    assert events[0].step == 1


@pytest.mark.parametrize("change", [{"lr": 2e-3}, {"seed": 1}, {"model": "vit"}, {"rungs": (50,)}])
def test_the_state_of_another_config_is_refused(change: dict[str, Any], subset: SearchData) -> None:
    run = new_run(subset)
    next(iter(train(run)))
    other = new_run(subset, **change)
    before = {key: value.clone() for key, value in other.model.state_dict().items()}
    with pytest.raises(StateError, match="another config; start the run afresh"):
        other.load_state_dict(through_a_file(run))
    assert other.step == 0
    torch.testing.assert_close(other.model.state_dict(), before, rtol=0.0, atol=0.0)


def test_the_state_of_other_data_is_refused(subset: SearchData) -> None:
    state = new_run(subset).state_dict()
    with pytest.raises(StateError, match="another checksum"):
        new_run(subset).load_state_dict({**state, "checksum": "0" * 16})


def test_a_state_that_says_nothing_is_refused(subset: SearchData) -> None:
    with pytest.raises(StateError, match="another config"):
        new_run(subset).load_state_dict({})
