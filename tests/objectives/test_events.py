"""A trial's rungs in a real Optuna study: reported once, and pruned when the pruner says so."""

from collections.abc import Callable, Iterator
from functools import partial

import optuna
import pytest
from optuna.pruners import NopPruner, ThresholdPruner

from objectives.data import SearchData
from objectives.metrics import Event, Pause, RungMetrics
from objectives.objective import (
    PRUNED_AT,
    events,
    keep_reported,
    result,
    settle,
    wants_pruning,
)
from objectives.outcome import Outcome
from objectives.run import Run
from objectives.training import train
from tests.objectives.tiny import new_run, rung_metrics

HOPELESS = 1.1  # no accuracy reaches it


def new_trial(pruner: optuna.pruners.BasePruner) -> optuna.Trial:
    """The first trial of a study in memory."""
    return optuna.create_study(direction="maximize", pruner=pruner).ask()


def stored(trial: optuna.Trial) -> dict[int, float]:
    """What the store holds of the trial's curve."""
    return dict(trial.study.get_trials()[trial.number].intermediate_values)


def told(
    trial: optuna.Trial, run: Run, pause: Callable[[], bool] = lambda: False
) -> Iterator[Event]:
    """The events of a run whose rungs are reported to `trial`."""
    return events(run, partial(settle, trial, run), pause)


def curve(run: Run) -> dict[int, float]:
    return {metrics.rung: metrics.val_accuracy for metrics in run.curve}


def test_each_rung_is_reported_once_at_its_number(subset: SearchData) -> None:
    trial, run = new_trial(NopPruner()), new_run(subset)
    seen = [event.rung for event in told(trial, run) if isinstance(event, RungMetrics)]
    assert seen == [50, 110, 200]
    assert stored(trial) == curve(run)
    assert run.curve[0].images_seen == 60, "the step is the rung, not the images"


def test_a_rung_is_reported_after_the_caller_has_seen_it(subset: SearchData) -> None:
    trial, run = new_trial(NopPruner()), new_run(subset)
    counts = [len(stored(trial)) for _ in told(trial, run)]
    assert counts == [0, 1, 2]
    assert len(stored(trial)) == 3


def test_a_rung_trained_once_more_keeps_what_was_reported_of_it(subset: SearchData) -> None:
    trial, run = new_trial(NopPruner()), new_run(subset)
    run.curve = [rung_metrics(50, 0.3)]
    keep_reported(trial, run)
    settle(trial, run)
    run.curve = [rung_metrics(50, 0.3000001)]
    keep_reported(trial, run)
    assert curve(run) == {50: 0.3} == stored(trial)


def test_a_stored_rung_is_not_reported_again(subset: SearchData) -> None:
    trial, run = new_trial(NopPruner()), new_run(subset)
    run.curve = [rung_metrics(50, 0.3)]
    settle(trial, run)
    run.curve = [rung_metrics(50, 0.9), rung_metrics(110, 0.4)]
    settle(trial, run)  # Optuna would warn of the first, and warnings fail this suite
    settle(optuna.trial.Trial(trial.study, trial._trial_id), run)
    assert stored(trial) == {50: 0.3, 110: 0.4}


def test_rungs_passed_during_an_outage_are_reported_together(subset: SearchData) -> None:
    trial, run = new_trial(ThresholdPruner(lower=HOPELESS)), new_run(subset)
    run.curve = [rung_metrics(50, 0.3), rung_metrics(110, 0.4)]
    assert settle(trial, run)
    assert stored(trial) == {50: 0.3, 110: 0.4}
    assert trial.user_attrs[PRUNED_AT] == 110


def test_a_restored_run_reports_only_what_is_new(subset: SearchData) -> None:
    trial, run = new_trial(NopPruner()), new_run(subset)
    for metrics in told(trial, run):
        assert isinstance(metrics, RungMetrics)
        if metrics.rung == 110:
            settle(trial, run)
            break
    restored = new_run(subset)
    restored.load_state_dict(run.state_dict())
    rest = list(told(optuna.trial.Trial(trial.study, trial._trial_id), restored))
    assert [event.rung for event in rest if isinstance(event, RungMetrics)] == [200]
    assert stored(trial) == curve(restored)


def test_a_run_stops_at_the_rung_where_the_pruner_gives_up(subset: SearchData) -> None:
    trial, run = new_trial(ThresholdPruner(lower=HOPELESS, n_warmup_steps=110)), new_run(subset)
    *_, last = told(trial, run)
    assert list(curve(run)) == [50, 110]
    assert stored(trial) == curve(run)
    ending = result(run, last, chance=0.1)
    assert (ending.outcome, ending.value, ending.last) == (Outcome.PRUNED, None, run.curve[-1])


def test_the_pruner_is_not_asked_at_the_last_rung(subset: SearchData) -> None:
    trial, run = new_trial(ThresholdPruner(lower=HOPELESS, n_warmup_steps=200)), new_run(subset)
    *_, last = told(trial, run)
    assert trial.should_prune(), "it would have given up"
    assert not wants_pruning(trial, run)
    ending = result(run, last, chance=0.1)
    assert ending.outcome is Outcome.COMPLETE
    assert ending.value == run.curve[-1].val_accuracy


def test_a_trial_given_up_before_an_interruption_is_not_trained_on(subset: SearchData) -> None:
    trial, run = new_trial(ThresholdPruner(lower=HOPELESS)), new_run(subset)
    next_rung(run)
    settle(trial, run)
    restored = new_run(subset)
    restored.load_state_dict(run.state_dict())
    assert list(told(trial, restored)) == []
    assert restored.images_seen == 60
    assert result(restored, None, chance=0.1).outcome is Outcome.PRUNED


def next_rung(run: Run) -> RungMetrics:
    """Train to the next rung, outside of any trial."""
    event = next(iter(train(run)))
    assert isinstance(event, RungMetrics)
    return event


def test_the_value_is_the_last_accuracy_not_the_best(subset: SearchData) -> None:
    run = new_run(subset)
    run.curve = [rung_metrics(50, 0.9), rung_metrics(110, 0.2), rung_metrics(200, 0.5)]
    assert result(run, run.curve[-1], chance=0.1).value == 0.5


def test_a_pause_is_passed_on(subset: SearchData) -> None:
    trial, run = new_trial(NopPruner()), new_run(subset)
    first = next(iter(told(trial, run, lambda: True)))
    assert first == Pause(20)
    assert stored(trial) == {}


@pytest.mark.parametrize("rungs_before", [0, 1])
def test_a_diverged_run_is_worth_chance(subset: SearchData, rungs_before: int) -> None:
    trial = new_trial(ThresholdPruner(lower=HOPELESS, n_warmup_steps=1_000))
    run = new_run(subset, lr=1e-3 if rungs_before else 1e30)
    seen = []
    for event in told(trial, run):
        seen.append(event)
        for group in run.optimizer.param_groups:
            group["lr"] = 1e30
    last = seen[-1]
    ending = result(run, last, chance=0.1)
    assert (ending.outcome, ending.value, ending.diverged) == (Outcome.DIVERGED, 0.1, last)
    assert len(stored(trial)) == rungs_before
    assert ending.last == (run.curve[-1] if rungs_before else None)
