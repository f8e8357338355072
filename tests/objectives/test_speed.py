"""Races: interleaved, stopped when narrow, counted while timed, doubted when disturbed."""

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice

import pytest
import torch
from torch import nn

from models.errors import InputError
from models.registry import variant
from objectives import speed, stretch
from objectives.calibration import Calibration, kernel_s
from objectives.contenders import Entrant, Task, check_equal, contenders, entrant, inequality
from objectives.data import SearchData
from objectives.execution import FAST, PLAIN
from objectives.intervals import LEAST_FOR_MEDIAN, Interval
from objectives.speed import Goal, gain, race
from objectives.stretch import Build, Contender
from objectives.turns import rounds
from tests.conftest import CPU, TINY

QUICK = Goal(half_width=0.5, most_rounds=14, sample_s=0.001, kernel_s=0.05)


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "WARM_UP_S", 0.01)


@pytest.fixture(autouse=True)
def imported_modules_stay_no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they are looked at between rounds, which are hundreds here."""
    monkeypatch.setattr(gc, "unfreeze", lambda: None)


class Clock:
    """A clock that only moves when a contender works."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def contender(self, name: str, seconds: float, calls: list[str] | None = None) -> Contender:
        """One that takes so long, and notes that it was called."""

        def call() -> None:
            self.now_s += seconds
            if calls is not None:
                calls.append(name)

        return Contender(name, call, nn.Identity(), (), 1, 10, lambda: 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("objectives.turns.time.perf_counter", made)
    monkeypatch.setattr(speed, "kernel_s", lambda *_: 1.0)
    return made


def again(both: list[Contender]) -> Build:
    """The same contenders, as if built anew."""
    return lambda is_reversed: both[::-1] if is_reversed else both


def entrants(data: SearchData, *names: str) -> list[Entrant]:
    return [entrant(variant(name), TINY, data) for name in names]


def test_rounds_call_each_once_in_changing_order(clock: Clock) -> None:
    calls: list[str] = []
    times = {"a": 1.0, "b": 2.0, "c": 3.0}
    each = {name: clock.contender(name, s, calls).call for name, s in times.items()}
    taken = list(islice(rounds(each, CPU), 20))
    in_rounds = [calls[i : i + 3] for i in range(0, 60, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in in_rounds)
    assert len({tuple(one) for one in in_rounds}) > 3
    assert all(one == times for one in taken)
    assert gc.isenabled()


def test_the_ratio_is_how_often_faster_a_contender_is(clock: Clock) -> None:
    both = [clock.contender("slow", 2e-3), clock.contender("fast", 1e-3)]
    found = race(again(both), CPU, QUICK)
    ratio = found.ratio("fast")
    assert [ratio.low, ratio.high] == pytest.approx([2.0, 2.0])
    assert found.timings[1].images_per_s == pytest.approx(10_000)
    saved = gain(Interval(2.0, 1.0, 4.0))
    assert (saved.estimate, saved.low, saved.high) == (0.5, 0.0, 0.75)


def test_who_is_built_first_has_no_advantage(clock: Clock) -> None:
    orders = []

    def build(is_reversed: bool) -> list[Contender]:
        names = ["b", "a"] if is_reversed else ["a", "b"]
        orders.append(names)
        return [clock.contender(name, s) for name, s in zip(names, (1.1e-3, 1e-3), strict=True)]

    found = race(build, CPU, replace(QUICK, half_width=-1.0, most_rounds=60))
    assert orders == [["a", "b"], ["b", "a"]] * 2
    assert [timing.name for timing in found.timings] == ["a", "b"]
    assert [sorted(timing.samples_s) for timing in found.timings] == [
        pytest.approx([1e-3] * 30 + [1.1e-3] * 30)
    ] * 2
    assert found.ratio("b").contains(1.0)


def test_a_race_goes_on_until_its_intervals_are_narrow(clock: Clock) -> None:
    both = [clock.contender("a", 1e-4), clock.contender("b", 1e-4)]
    easy = race(again(both), CPU, replace(QUICK, half_width=1e-9, most_rounds=120))
    assert (len(easy.timings[0].samples_s), easy.is_narrow) == (30, True)
    never = race(again(both), CPU, replace(QUICK, half_width=-1.0, most_rounds=60))
    assert (len(never.timings[0].samples_s), never.is_narrow) == (60, False)
    late = race(again(both), CPU, replace(QUICK, half_width=-1.0, most_rounds=60, limit_s=0.0))
    assert len(late.timings[0].samples_s) == LEAST_FOR_MEDIAN
    assert list(Goal(most_rounds=200).looks()) == [30, 60, 120]


def kernels(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> Callable[[], int]:
    """Let the calibration kernel take these times, one after another; returns what is left."""
    left = list(seconds)
    monkeypatch.setattr(speed, "kernel_s", lambda *_: left.pop(0))
    return lambda: len(left)


def test_a_disturbed_measurement_is_repeated_and_then_called_so(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    both = [clock.contender("a", 1e-4), clock.contender("b", 1e-4)]
    left = kernels(monkeypatch, 1.0, 1.2, 1.0, 1.01, 9.9)
    found = race(again(both), CPU, QUICK)
    assert (found.attempts, found.trouble, left()) == (2, "", 1)
    kernels(monkeypatch, 1.0, 1.2, 1.0, 0.8, 1.0, 1.2)
    found = race(again(both), CPU, QUICK)
    assert (found.attempts, found.trouble) == (3, "the device became 20% slower")


def test_a_device_that_was_faster_once_is_throttled_or_shared() -> None:
    assert Calibration(1.0, 1.0, best_s=0.95).trouble == ""
    assert "25% slower than it has been" in Calibration(1.0, 1.0, best_s=0.8).trouble
    assert 0 < kernel_s(CPU, 0.05) < 1


def test_blocks_are_counted_while_they_are_timed(
    monkeypatch: pytest.MonkeyPatch, subset: SearchData
) -> None:
    monkeypatch.setattr(speed, "MOST_ATTEMPTS", 1)
    task = Task("train", 20, "float32", FAST, subset, CPU)
    both = entrants(subset, "vit", "vitbn_oneblock")
    found = race(partial(contenders, both, task), CPU, QUICK)
    counted = {timing.name: (timing.blocks, timing.blocks_executed) for timing in found.timings}
    assert counted == {"vit": (2, 2.0), "vitbn_oneblock": (2, 1.0)}


def test_training_is_training_and_evaluation_is_not(subset: SearchData) -> None:
    task = Task("train", 20, "float32", FAST, subset, CPU)
    (trained,) = contenders(entrants(subset, "vitbn"), task)
    before = [p.detach().clone() for p in trained.model.parameters()]
    trained.call()
    assert not all(map(torch.equal, before, trained.model.parameters()))
    task = replace(task, work="eval", execution=PLAIN)
    found = contenders(entrants(subset, "vitbn"), task)
    assert [each.name for each in found] == ["vitbn", "vitbn, folded"]
    state = {k: v.clone() for k, v in found[0].model.state_dict().items()}
    logits = [each.call() for each in found]
    assert all(torch.equal(v, state[k]) for k, v in found[0].model.state_dict().items())
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in found[1].model.modules())


def test_a_model_without_batch_norm_has_no_folded_form(subset: SearchData) -> None:
    task = Task("eval", 20, "float32", FAST, subset, CPU)
    assert [each.name for each in contenders(entrants(subset, "vit"), task)] == ["vit"]


def test_unequal_depth_and_work_are_refused_by_name(subset: SearchData) -> None:
    with pytest.raises(
        InputError, match="vitbn_oneblock executes 1 of 2 blocks, vit 2 of 2 blocks"
    ):
        check_equal(entrants(subset, "vit", "vitbn_oneblock"))
    check_equal(entrants(subset, "vit", "vitbnffn", "vitbn"))
    wide = entrant(variant("vit"), replace(TINY, mlp_dim=64), subset)
    assert "GMACs" in inequality([*entrants(subset, "vit"), wide])
