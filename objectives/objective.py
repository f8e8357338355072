"""What a trial does: train, report each rung once, end with an outcome."""

import math
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace

import optuna
import torch
from optuna.trial import TrialState

from models.errors import first_line
from objectives.images import Split
from objectives.measuring import measure_test
from objectives.metrics import Diverged, Event, RungMetrics, TestMetrics
from objectives.outcome import Outcome
from objectives.run import Run
from objectives.training import train
from objectives.watch import OFF, NoWatch

PRUNED_AT = "pruned_at"  # attribute of a trial: the rung at which the pruner gave it up

# Of errors that torch raises as a plain RuntimeError: on CPU, in CUDA's libraries, on MPS.
_MEMORY_WORDS = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Result:
    """A trial's end, before the store is told."""

    outcome: Outcome
    value: float | None  # what the sampler learns; None: the last reported rung's
    last: RungMetrics | None = None
    diverged: Diverged | None = None
    test: TestMetrics | None = None  # None: the test images were not read
    reason: str = ""
    traceback: str = ""


def events(
    run: Run,
    settle: Callable[[], bool],
    pause: Callable[[], bool] = lambda: False,
    watch: NoWatch = OFF,
    begin: Callable[[], None] = lambda: None,
) -> Generator[Event]:
    """Train `run`; once the caller has seen an event, `settle` it.

    Stops where `settle` says that the pruner has given up, also if that was before an
    interruption; else `begin` is called before training. A `Pause` is passed on from `train`,
    which `watch` is for. A caller that leaves early closes this generator, so that the other
    processes of the run's team hear of it.
    """
    if settle():
        return
    begin()
    with closing(train(run, pause, watch)) as trained:
        for event in trained:
            yield event
            if settle():
                return


def settle(trial: optuna.Trial, run: Run) -> bool:
    """Report what the store has not got of the curve; whether the pruner gives the trial up."""
    reported = trial.study._storage.get_trial(trial._trial_id).intermediate_values
    for metrics in run.curve:
        if not math.isnan(metrics.val_accuracy) and metrics.rung not in reported:
            trial.report(metrics.val_accuracy, step=metrics.rung)
    return wants_pruning(trial, run)


def keep_reported(trial: optuna.Trial, run: Run) -> None:
    """Give the last rung of the curve the accuracy that was reported of it before, if one was.

    A rung that is trained once more, without its checkpoint and on other hardware, may differ in
    the last digits: the first word stands, in all places.
    """
    reported = trial.study._storage.get_trial(trial._trial_id).intermediate_values
    last = run.curve[-1]
    if last.rung in reported:
        run.curve[-1] = replace(last, val_accuracy=reported[last.rung])


def wants_pruning(trial: optuna.Trial, run: Run) -> bool:
    """Whether the pruner gives the trial up; it is not asked at the last rung.

    Its verdict is kept: successive halving answers "no" when asked about a rung again.
    """
    if not run.curve or run.curve[-1].rung == run.config.rungs[-1]:
        return False
    rung = run.curve[-1].rung
    if trial.user_attrs.get(PRUNED_AT) == rung:
        return True
    verdict = trial.should_prune()
    if verdict:
        trial.set_user_attr(PRUNED_AT, rung)
    return verdict


def result(run: Run, event: Event | None, chance: float) -> Result:
    """The end of a run whose last event was `event`."""
    if isinstance(event, Diverged):
        return Result(Outcome.DIVERGED, chance, last=_last(run), diverged=event)
    last = _last(run)
    if last is not None and last.rung == run.config.rungs[-1]:
        return Result(Outcome.COMPLETE, last.val_accuracy, last)
    return Result(Outcome.PRUNED, None, last)


def tested(result: Result, run: Run, test: Split) -> Result:
    """The end of a run that came to its end, with what it is worth on the test images.

    Without a validation split that is its value, too.
    """
    found = measure_test(run, test)
    assert result.value is not None  # it is complete
    value = found.test_accuracy if math.isnan(result.value) else result.value
    return replace(result, test=found, value=value)


def out_of_memory(run: Run | None, chance: float, reason: str) -> Result:
    """The end of a run that did not fit into memory."""
    return Result(Outcome.OOM, chance, _last(run) if run else None, reason=first_line(reason))


def failed(error: BaseException) -> Result:
    """The end of a trial that met a bug."""
    return Result(
        Outcome.FAILED,
        None,
        reason=f"{type(error).__name__}: {first_line(str(error))}",
        traceback="".join(traceback.format_exception(error)),
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or one that it came of, says that there was no memory left.

    The end of a graph's recording may raise an error of its own.
    """
    said = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_WORDS)
    )
    before = error.__cause__ or error.__context__
    return said or (before is not None and is_out_of_memory(before))


def tell(trial: optuna.Trial, result: Result) -> None:
    """Finish `trial` in the store.

    A diverged or oversized configuration is a result: COMPLETE at chance accuracy, infeasible.
    Every finishing trial sets the same two constraints: without one it would pass for feasible,
    and GPSampler needs them on all trials or on none.
    """
    if result.outcome is Outcome.FAILED:
        trial.study.tell(trial, state=TrialState.FAIL)
        return
    violated = {
        "finite": result.outcome is Outcome.DIVERGED,
        "memory": result.outcome is Outcome.OOM,
    }
    for key, is_violated in violated.items():
        if key not in trial.constraints:
            trial.set_constraint(key, 1.0 if is_violated else -1.0)
    if result.outcome is Outcome.PRUNED:
        trial.study.tell(trial, state=TrialState.PRUNED)
    else:
        trial.study.tell(trial, result.value, state=TrialState.COMPLETE)


def _last(run: Run) -> RungMetrics | None:
    return run.curve[-1] if run.curve else None
