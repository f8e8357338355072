"""The rule that chooses learning rates: pure, and right whatever the runs come to."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from models.errors import InputError
from objectives.outcome import Outcome
from study.bisection import Bisection, rates_to_train
from study.bracket import Bracket, Trained, bracket, limit_words
from study.plan import Slot, Values
from study.stability_plan import usual_grid

PLAN = Bisection((1e-5, 10.0), (16, 64), grid=13, steps=3, seeds=3)
HALF_DECADE = math.sqrt(10)


def stable(accuracy: float = 0.5) -> Trained:
    return Trained((Outcome.COMPLETE,) * 3, accuracy)


def unstable() -> Trained:
    return Trained((Outcome.COMPLETE, Outcome.DIVERGED, Outcome.COMPLETE), 0.4)


def trained(
    grid: Sequence[float], steps: int, outcome: Callable[[float], Trained]
) -> dict[float, Trained]:
    """What is known once all has been trained; each rate is asked for only when it may be."""
    known: dict[float, Trained] = {}
    while left := [lr for lr in rates_to_train(grid, steps, known) if lr not in known]:
        known |= {lr: outcome(lr) for lr in left}
    return known


@pytest.mark.parametrize("steps", [0, 1, 3, 10])
def test_a_threshold_is_found_within_the_factor_that_the_steps_promise(steps: int) -> None:
    drawn = random.Random(steps)
    for _ in range(50):
        threshold = 10 ** drawn.uniform(-4.99, 0.99)
        outcome = {True: stable(), False: unstable()}
        known = trained(PLAN.rates, steps, lambda lr: outcome[lr < threshold])  # noqa: B023
        ends = bracket(known)
        assert len(known) == PLAN.grid + steps
        assert ends.low is not None
        assert ends.high is not None
        assert ends.low < threshold <= ends.high
        assert ends.high / ends.low == pytest.approx(HALF_DECADE ** (0.5**steps), rel=1e-4)


def test_with_any_outcomes_no_rate_is_asked_for_twice_or_out_of_range() -> None:
    for seed in range(300):
        drawn = random.Random(seed)
        share = drawn.random()
        outcomes = {True: unstable(), False: stable()}
        known = trained(PLAN.rates, 5, lambda _: outcomes[drawn.random() < share])  # noqa: B023
        ends = bracket(known)
        sound = [lr for lr, found in known.items() if found.is_stable]
        assert len(known) == PLAN.grid + 5
        assert min(known) == 1e-5
        assert max(known) == 10.0
        assert ends.low == max(sound, default=None)
        if ends.low is not None and ends.high is not None:
            ordered = sorted(known)
            assert (ends.low, ends.high) in pairwise(ordered), "nothing is between them"


def test_a_stable_rate_above_an_unstable_one_counts() -> None:
    known = {1e-3: stable(), 1e-2: unstable(), 1e-1: stable(), 1.0: unstable()}
    assert bracket(known) == Bracket(0.1, 1.0)


def test_what_ran_out_of_memory_is_neither_stable_nor_not() -> None:
    lacking = Trained((Outcome.OOM,) * 3, 0.1)
    assert bracket({1e-3: stable(), 1e-2: lacking, 1e-1: unstable()}) == Bracket(1e-3, 1e-1)
    assert bracket({1e-3: lacking}) == Bracket(None, None)
    partly = Trained((Outcome.OOM, Outcome.COMPLETE, Outcome.COMPLETE), 0.3)
    assert bracket({1e-3: partly}) == Bracket(1e-3, None)


def test_where_all_is_stable_steps_go_beside_the_best() -> None:
    best = PLAN.rates[6]
    known = trained(PLAN.rates, 2, lambda lr: stable(0.9 if lr == best else 0.5))
    added = sorted(set(known) - set(PLAN.rates))
    assert len(added) == 2
    below, above = added
    assert PLAN.rates[5] < below < best < above < PLAN.rates[7]
    assert bracket(known) == Bracket(10.0, None)


def test_where_nothing_is_stable_steps_go_to_the_low_end() -> None:
    known = trained(PLAN.rates, 2, lambda _: unstable())
    added = sorted(set(known) - set(PLAN.rates))
    assert len(added) == 2
    assert max(added) < PLAN.rates[1]
    assert bracket(known) == Bracket(None, 1e-5)


def test_the_grid_has_a_rate_for_each_half_decade() -> None:
    assert [usual_grid(ends) for ends in ((1e-5, 10.0), (1e-3, 1e-2), (1e-3, 1.1e-3))] == [13, 3, 2]
    assert PLAN.rates[0] == 1e-5
    assert PLAN.rates[-1] == 10.0
    for low, high in pairwise(PLAN.rates):
        assert high / low == pytest.approx(HALF_DECADE, rel=1e-6)


def fate(values: Values) -> Slot:
    """How a run with these values ends: above a threshold of its batch size it diverges."""
    if values["lr"] * values["batch_size"] > 3.0:
        return Slot(values, Outcome.DIVERGED, 0.1)
    return Slot(values, Outcome.COMPLETE, 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_each_run_is_made_once_in_any_order_of_ends_and_failures(seed: int) -> None:
    """As `slots.fill` asks: at any time, for any number; what fails is no longer held."""
    drawn = random.Random(seed)
    slots: list[Slot] = []
    made = 0
    while any(slot.outcome is None for slot in slots) or len(slots) < PLAN.runs:
        missing = min(PLAN.runs - len(slots), drawn.randrange(1, 40))
        given = PLAN.values(5, range(made, made + missing), lambda: slots)  # noqa: B023
        assert len(given) <= missing
        made += len(given)
        slots += [Slot(values) for values in given]
        for slot in drawn.sample(slots, k=min(len(slots), drawn.randrange(30))):
            if slot.outcome is None:
                slots.remove(slot)
                if drawn.random() > 0.1:  # else it failed
                    slots.append(fate(slot.values))
    keys = [tuple(slot.values.values()) for slot in slots]
    assert len(set(keys)) == len(keys) == PLAN.runs == 2 * 16 * 3
    assert {slot.values["seed"] for slot in slots} == {5, 6, 7}
    for size, threshold in ((16, 3.0 / 16), (64, 3.0 / 64)):
        ends = bracket(PLAN.known(s for s in slots if s.values["batch_size"] == size))
        assert ends.low is not None
        assert ends.high is not None
        assert ends.low <= threshold < ends.high <= ends.low * 1.16


def test_a_batch_size_does_not_wait_for_the_others() -> None:
    grid = PLAN.values(1, range(1_000), list)
    assert len(grid) == 2 * 13 * 3
    assert PLAN.values(1, range(5), list) == grid[:5]
    slots = [fate(values) if values["batch_size"] == 16 else Slot(values) for values in grid]
    (first, *others) = PLAN.values(1, range(1_000), lambda: slots)
    assert len(others) == 2
    assert {value["batch_size"] for value in (first, *others)} == {16}
    assert 0.1 < first["lr"] < HALF_DECADE / 10
    slots[0] = Slot(slots[0].values)
    assert PLAN.values(1, range(1_000), lambda: slots) == [], "not before all seeds have ended"


def test_the_limit_is_told_in_words() -> None:
    lr = (1e-5, 10.0)
    assert limit_words(Bracket(0.1, 0.316), lr) == "stable up to lr 0.1, not at 0.316"
    assert "above which none" in limit_words(Bracket(10.0, None), lr)
    assert limit_words(Bracket(None, 1e-5), lr) == "no learning rate from 1e-05 on is stable"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": (1.0, 0.1)}, "lr range 1:0.1 must be positive, the lower end first"),
        ({"lr": (0.1, 0.1)}, "the lower end first"),
        ({"lr": (-1.0, 0.1)}, "must be positive"),
        ({"lr": (0.1, 0.101)}, "too narrow for 13 learning rates"),
        ({"batch_sizes": (16, 16)}, "a batch size is given twice"),
        ({"grid": 1}, "grid 1 must be from 2 to 100"),
        ({"steps": 11}, "steps 11 must be from 0 to 10"),
        ({"seeds": 0}, "seeds 0 must be from 1 to 1,000"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(PLAN, **changes).check()  # type: ignore[arg-type]
    PLAN.check()
