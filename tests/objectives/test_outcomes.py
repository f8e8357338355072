"""How trials end in the store, and what samplers make of it."""

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from objectives.objective import Result, failed, is_out_of_memory, out_of_memory, tell
from objectives.outcome import Outcome
from objectives.search_space import SearchSpace
from tests.objectives.tiny import rung_metrics

CHANCE = 0.1
RESULTS = {
    Outcome.COMPLETE: Result(Outcome.COMPLETE, 0.7, rung_metrics(200, 0.7)),
    Outcome.PRUNED: Result(Outcome.PRUNED, None, rung_metrics(50, 0.3)),
    Outcome.DIVERGED: Result(Outcome.DIVERGED, CHANCE),
    Outcome.OOM: Result(Outcome.OOM, CHANCE),
    Outcome.FAILED: Result(Outcome.FAILED, None),
}


def finished(study: optuna.Study, result: Result, reported: float | None = 0.3) -> FrozenTrial:
    """A new trial of `study` after it was told `result`, as the store has it."""
    trial = study.ask()
    SearchSpace().suggest(trial)
    if reported is not None:
        trial.report(reported, step=50)
    tell(trial, result)
    return study.get_trials()[trial.number]


def new_study(sampler: BaseSampler | None = None) -> optuna.Study:
    """A study in memory."""
    return optuna.create_study(direction="maximize", sampler=sampler or RandomSampler(seed=0))


@pytest.mark.parametrize(
    ("outcome", "state", "value", "constraints"),
    [
        (Outcome.COMPLETE, TrialState.COMPLETE, 0.7, {"finite": -1.0, "memory": -1.0}),
        (Outcome.PRUNED, TrialState.PRUNED, 0.3, {"finite": -1.0, "memory": -1.0}),
        (Outcome.DIVERGED, TrialState.COMPLETE, CHANCE, {"finite": 1.0, "memory": -1.0}),
        (Outcome.OOM, TrialState.COMPLETE, CHANCE, {"finite": -1.0, "memory": 1.0}),
        (Outcome.FAILED, TrialState.FAIL, None, {}),
    ],
)
def test_each_outcome_has_a_state_a_value_and_constraints(
    outcome: Outcome, state: TrialState, value: float | None, constraints: dict[str, float]
) -> None:
    trial = finished(new_study(), RESULTS[outcome])
    assert (trial.state, trial.value, trial.constraints) == (state, value, constraints)


def test_every_outcome_is_tested_here() -> None:
    assert set(RESULTS) == set(Outcome)


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.OOM])
def test_an_infeasible_trial_is_never_the_best(outcome: Outcome) -> None:
    study = new_study()
    finished(study, RESULTS[outcome])
    finished(study, Result(Outcome.COMPLETE, 0.05, rung_metrics(200, 0.05)))
    assert study.best_trial.number == 1


def test_a_diverged_trial_may_end_without_a_rung() -> None:
    assert finished(new_study(), RESULTS[Outcome.DIVERGED], reported=None).value == CHANCE


def test_the_second_to_finish_is_told_so() -> None:
    study = new_study()
    trial = study.ask()
    other = optuna.trial.Trial(study, trial._trial_id)
    tell(trial, RESULTS[Outcome.COMPLETE])
    with pytest.raises((optuna.exceptions.UpdateFinishedTrialError, ValueError)):
        tell(other, RESULTS[Outcome.DIVERGED])
    assert study.trials[0].value == 0.7
    assert study.trials[0].constraints == {"finite": -1.0, "memory": -1.0}


def test_constraints_that_an_earlier_attempt_set_are_kept() -> None:
    study = new_study()
    trial = study.ask()
    trial.set_constraint("finite", -1.0)
    tell(optuna.trial.Trial(study, trial._trial_id), RESULTS[Outcome.COMPLETE])
    assert study.trials[0].constraints == {"finite": -1.0, "memory": -1.0}


def outcome_of(values: dict[str, Any], number: int) -> Result:
    """High learning rates diverge; others are the better the nearer to 1e-4; some are pruned."""
    if values["lr"] > 1e-3:
        return RESULTS[Outcome.DIVERGED]
    accuracy = 0.9 - 0.2 * abs(math.log10(values["lr"]) + 4)
    if number % 4 == 3:
        return Result(Outcome.PRUNED, None, rung_metrics(50, accuracy))
    if values["batch_size"] > 110:
        return RESULTS[Outcome.OOM]
    return Result(Outcome.COMPLETE, accuracy, rung_metrics(200, accuracy))


SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "tpe": lambda: TPESampler(n_startup_trials=4, multivariate=True, constant_liar=True, seed=0),
    "gp": lambda: GPSampler(n_startup_trials=4, seed=0),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_learn_from_a_mix_of_outcomes_to_leave_what_diverges(name: str) -> None:
    study, space = new_study(), SearchSpace()
    seen: set[TrialState] = set()
    for number in range(16):
        study.sampler = RandomSampler(seed=number)
        trial = study.ask()
        values = space.suggest(trial)
        result = outcome_of(values, number)
        if result.last is not None:
            trial.report(result.last.val_accuracy, step=50)
        tell(trial, result)
        seen.add(study.trials[number].state)
    outcomes = [trial.constraints["finite"] for trial in study.trials]
    assert seen == {TrialState.COMPLETE, TrialState.PRUNED}
    assert 3 <= outcomes.count(1.0) <= 10

    finished(study, RESULTS[Outcome.FAILED])  # has no constraints at all
    study.sampler = SAMPLERS[name]()
    rates = []
    for _ in range(4):
        trial = study.ask()
        values = space.suggest(trial)
        rates.append(float(values["lr"]))
        tell(trial, outcome_of(values, 0))
    assert sum(rate <= 1e-3 for rate in rates) >= 3, rates


def test_a_failure_carries_its_reason_and_traceback() -> None:
    def broken() -> None:
        raise ValueError("shapes differ\nin a second line")

    try:
        broken()
    except ValueError as error:
        result = failed(error)
    assert (result.outcome, result.value) == (Outcome.FAILED, None)
    assert result.reason == "ValueError: shapes differ"
    assert "in broken" in result.traceback
    assert "in a second line" in result.traceback


def test_a_failure_without_a_message_still_has_a_reason() -> None:
    assert failed(AssertionError()).reason == "AssertionError: no message"


def allocation_error() -> RuntimeError:
    """What torch raises for a tensor that no machine can hold."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    return raised.value


def test_lack_of_memory_is_told_from_other_errors() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(allocation_error())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_out_of_memory_is_worth_chance_with_or_without_a_run() -> None:
    result = out_of_memory(None, CHANCE, "CUDA out of memory.\nTried to")
    assert result == Result(Outcome.OOM, CHANCE, reason="CUDA out of memory.")
