"""A trial once more: the same suggestion from what was known then, and the same curve."""

import math
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from models.errors import InputError
from objectives.data import load_search_data
from objectives.datasets import dataset
from objectives.hardware import device_label
from objectives.metrics import Diverged, RungMetrics
from objectives.run import Run
from objectives.starting import start
from objectives.training import train
from study.environment import device_of, versions
from study.errors import UnknownStudyError
from study.execution import execution_of
from study.fitness import check_data
from study.identity import StudyIdentity, identity_of
from study.plan import COMPUTED, CURVE, Values
from study.settings import Settings
from study.slots import FIXED_PARAMS
from study.storage import Store
from study.studies import VERSIONS_KEY, find_study
from study.suggestion import SUGGESTED_BY, VISIBLE, proposed
from study.words import numbers_of
from study.worker_storage import WorkerStorage


@dataclass(frozen=True)
class RungReplica:
    """A rung then and now, None where there was none."""

    rung: int
    then: float | None  # validation accuracy, a share; else the training loss
    now: float | None
    is_loss: bool = False  # as of a fit on train+val, which has no validation split

    @property
    def is_same(self) -> bool:
        """To the last digit."""
        return self.then == self.now


@dataclass(frozen=True)
class Replica:
    """What came out of a trial that was done once more."""

    study: str
    number: int
    suggested_by: str
    learned_from: str  # numbers of the trials that had ended, where a sampler inferred the values
    then: Values
    now: Values
    rungs: tuple[RungReplica, ...]
    outcome_then: str
    outcome_now: str
    computed_then: str
    computed_now: str

    @property
    def is_suggestion_same(self) -> bool:
        """Whether the values are the same to the last digit."""
        return self.then == self.now

    @property
    def is_curve_same(self) -> bool:
        """Whether all rungs are the same to the last digit, and so is the end."""
        return all(rung.is_same for rung in self.rungs) and self.outcome_then == self.outcome_now

    @property
    def is_same(self) -> bool:
        """Whether all is."""
        return self.is_suggestion_same and self.is_curve_same

    @property
    def largest_difference(self) -> float | None:
        """Of accuracies at a rung that both have; None where there is none."""
        both = (r for r in self.rungs if r.then is not None and r.now is not None and not r.is_loss)
        return max((abs((r.then or 0.0) - (r.now or 0.0)) for r in both), default=None)


def replay(
    store: Store,
    settings: Settings,
    name: str,
    number: int,
    device: str,
    say: Callable[[str], None],
) -> Replica:
    """Suggest and train trial `number` of study `name` once more; nothing is written.

    Raises UnknownStudyError, InputError where the trial has not ended or never began, and
    DataDifferError.
    """
    study = find_study(store, name)
    identity = identity_of(study)
    if identity is None:
        raise UnknownStudyError(f"the study '{name}' was not made by bnvit-study")
    trials = study.get_trials(deepcopy=False)
    trial = _ended(trials, name, number)
    now = _suggested_again(store, study, identity, trials, trial)
    run = _prepared(study, identity, trial, settings, device)
    say(f"training trial {number} once more, to {_last_rung(trial, run):,} images")
    rungs, outcome = _trained_again(run, trial)
    learned = trial.user_attrs.get(VISIBLE, {}).get("finished", "")
    return Replica(
        study=name,
        number=number,
        suggested_by=trial.user_attrs.get(SUGGESTED_BY, "people"),
        learned_from=learned,
        then=dict(trial.params),
        now=now,
        rungs=tuple(rungs),
        outcome_then=trial.user_attrs["outcome"],
        outcome_now=outcome,
        computed_then=_computed(trial.user_attrs.get(COMPUTED, {}), study.user_attrs),
        computed_now=_computed_here(run),
    )


def _ended(trials: list[FrozenTrial], name: str, number: int) -> FrozenTrial:
    if not 0 <= number < len(trials):
        raise InputError(f"'{name}' has no trial {number}; its trials are 0 to {len(trials) - 1}")
    trial = trials[number]
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        raise InputError(f"trial {number} of '{name}' has not come to an end that can be repeated")
    return trial


def _suggested_again(
    store: Store,
    study: optuna.Study,
    identity: StudyIdentity,
    trials: list[FrozenTrial],
    trial: FrozenTrial,
) -> Values:
    """From the trials that the sampler was shown then, each in the state that it was in."""
    visible = trial.user_attrs.get(VISIBLE)
    if visible is None:
        return _given(identity, trial)
    seen = [trials[number] for number in numbers_of(visible["finished"])]
    seen += [_running(trials[number]) for number in numbers_of(visible["running"])]
    seen.sort(key=lambda one: one.number)
    # Samplers write to the trial that they are asked about; a worker's storage keeps that back.
    storage = WorkerStorage(store, study._study_id, identity.space.distributions())
    storage.take_up(trial._trial_id)
    unwritten = optuna.load_study(study_name=study.study_name, storage=storage)
    return proposed(unwritten, identity, trial, seen)[0]


def _given(identity: StudyIdentity, trial: FrozenTrial) -> Values:
    """A start point, or values of a plan or of people, which nothing can infer again."""
    if trial.user_attrs.get(SUGGESTED_BY) == "start":
        return identity.space.starts(identity.seed)[trial.number]
    return dict(trial.system_attrs.get(FIXED_PARAMS, trial.params))


def _running(trial: FrozenTrial) -> FrozenTrial:
    """As samplers saw it while it ran: its values, and no result."""
    then = copy(trial)
    then.state, then.values, then.datetime_complete = TrialState.RUNNING, None, None
    return then


def _prepared(
    study: optuna.Study,
    identity: StudyIdentity,
    trial: FrozenTrial,
    settings: Settings,
    device: str,
) -> Run:
    """The trial at its beginning, with as many threads as it had."""
    here = device_of(device)
    threads = trial.user_attrs.get(COMPUTED, {}).get("threads")
    if here.type == "cpu" and threads is not None:
        torch.set_num_threads(threads)
    source = dataset(identity.dataset, settings.data_dir, identity.data_options)
    data = load_search_data(source, identity.is_joined).limited(identity.train_images)
    check_data(study.study_name, identity, data)
    return start(identity.config(trial.params), data, here, execution_of(study))


def _last_rung(trial: FrozenTrial, run: Run) -> int:
    return max(trial.intermediate_values, default=run.config.rungs[-1])


def _trained_again(run: Run, trial: FrozenTrial) -> tuple[list[RungReplica], str]:
    """As far as the trial came, or until it diverges."""
    reported, last = trial.intermediate_values, _last_rung(trial, run)
    outcome_then = trial.user_attrs["outcome"]
    losses = {rung["rung"]: rung["train_loss"] for rung in trial.user_attrs.get(CURVE, ())}
    found: list[RungReplica] = []
    for event in train(run):
        if isinstance(event, Diverged):
            return found, "diverged"
        assert isinstance(event, RungMetrics)  # nobody asked for a pause
        found.append(_compared(event, reported.get(event.rung), losses.get(event.rung)))
        if event.rung >= last and outcome_then != "diverged":
            break
    missing = sorted(reported.keys() - {rung.rung for rung in found})
    found += [RungReplica(rung, reported[rung], None) for rung in missing]
    return found, "pruned" if outcome_then == "pruned" else "complete"


def _compared(now: RungMetrics, accuracy: float | None, loss: float | None) -> RungReplica:
    """By accuracy; where nothing validates, by the loss that was kept."""
    if math.isnan(now.val_accuracy):
        return RungReplica(now.rung, loss, now.train_loss, is_loss=True)
    return RungReplica(now.rung, accuracy, now.val_accuracy)


def _computed(told: dict[str, Any], attributes: dict[str, Any]) -> str:
    if not told:
        return "not recorded"
    torch_then = attributes.get(VERSIONS_KEY, {}).get("torch", "unknown")
    return f"{told['device']}, {told['threads']} threads, torch {torch_then}, {told['execution']}"


def _computed_here(run: Run) -> str:
    threads, torch_now = torch.get_num_threads(), versions()["torch"]
    return f"{device_label(run.device)}, {threads} threads, torch {torch_now}, {run.execution}"


def replica_lines(found: Replica) -> Iterator[str]:
    """What came out, for people."""
    yield f"trial {found.number} of '{found.study}', suggested by {found.suggested_by}"
    after = f" from trials {found.learned_from}" if found.learned_from else ""
    same = "the same" if found.is_suggestion_same else f"OTHERS: {found.now}"
    yield f"values:  {found.then}{after}: {same}"
    for rung in found.rungs:
        then, now = (_shown(value, rung.is_loss) for value in (rung.then, rung.now))
        yield f"curve:   {rung.rung:,} images: {then} then, {now} now"
    yield f"end:     {found.outcome_then} then, {found.outcome_now} now"
    if found.is_curve_same:
        yield "curve:   the same to the last digit"
        return
    if found.largest_difference is not None:
        yield f"curve:   differs by at most {100 * found.largest_difference:.2f} points"
    yield f"then:    {found.computed_then}"
    yield f"now:     {found.computed_now}"


def _shown(value: float | None, is_loss: bool) -> str:
    if value is None:
        return "none"
    return f"loss {value:.6f}" if is_loss else f"{value:.4%}"
