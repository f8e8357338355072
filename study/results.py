"""What the runs of a study gave: read from the store alone, for comparisons and reports."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from objectives.outcome import Outcome
from study.errors import IncompleteError
from study.identity import StudyIdentity
from study.overview import Overview
from study.plan import COMPUTED, CURVE, TEST, Configuration, planned_values
from study.storage import Store
from study.studies import (
    SOURCE_KEY,
    SOURCE_TRIALS_KEY,
    VERSIONS_KEY,
    find_study,
    show_study,
)
from study.words import counted, ranges

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class RunResult:
    """One run that ended."""

    number: int
    lr: float
    batch_size: int
    seed: int
    outcome: Outcome
    value: float | None  # what Optuna was told: of one that diverged, the accuracy of guessing
    val_accuracy: float | None  # at its last rung
    test: Mapping[str, float]  # a `TestMetrics`; empty where it did not come to its end
    curve: tuple[Mapping[str, float], ...]  # what is known of each `RungMetrics`
    computed: Mapping[str, Any]  # device, threads, execution, parameters, blocks executed …
    diverged: Mapping[str, Any] | None  # a `Diverged`
    mlflow_run_id: str | None

    @property
    def configuration(self) -> Configuration:
        """Its learning rate and batch size."""
        return self.lr, self.batch_size

    @property
    def test_accuracy(self) -> float | None:
        """A share; None where it did not come to its end."""
        return self.test.get("test_accuracy")


@dataclass(frozen=True)
class StudyResult:
    """A study whose runs have all ended."""

    name: str
    identity: StudyIdentity
    source: str | None  # the search that a fit took its values from
    runs: tuple[RunResult, ...]
    versions: Mapping[str, str]
    seen: Overview
    source_trials: int | None = None  # of its source by then; None: no source, or not recorded
    label: str = ""  # what it is called beside others of its model

    @property
    def model(self) -> str:
        """For tables: with its precision where that is not the usual one."""
        return self.label or self.identity.title

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """Those of its plan."""
        return self.identity.configurations

    @property
    def executed(self) -> tuple[int, int] | None:
        """Blocks and multiply-adds of one image, as its runs counted them; None: not known."""
        known = (run.computed for run in self.runs if run.computed)
        first = next(known, None)
        return None if first is None else (first["blocks_executed"], first["multiply_adds"])

    def of(self, configuration: Configuration) -> tuple[RunResult, ...]:
        """Its runs with these values, by seed."""
        runs = (run for run in self.runs if run.configuration == configuration)
        return tuple(sorted(runs, key=lambda run: run.seed))


def read_result(store: Store, name: str) -> StudyResult:
    """The study called `name`.

    Raises UnknownStudyError, or IncompleteError where trials are left, saying which.
    """
    seen = show_study(store, name)
    check_ended(seen)
    study = find_study(store, name)
    runs = tuple(_run(trial) for trial in study.get_trials(deepcopy=False, states=_ENDED))
    is_of_use = seen.identity.is_planned  # also where every run diverged: that is a result
    if not is_of_use and not any(run.outcome is Outcome.COMPLETE for run in runs):
        raise IncompleteError(f"the study '{name}' has no completed trial")
    attrs = study.user_attrs
    return StudyResult(
        name=name,
        identity=seen.identity,
        source=attrs.get(SOURCE_KEY),
        runs=runs,
        versions=attrs.get(VERSIONS_KEY, {}),
        seen=seen,
        source_trials=attrs.get(SOURCE_TRIALS_KEY),
    )


def told_apart(results: Sequence[StudyResult]) -> tuple[StudyResult, ...]:
    """The same, where models are called alike with the names of their studies."""
    count = Counter(result.model for result in results)
    return tuple(
        replace(result, label=f"{result.model} ({result.name})")
        if count[result.model] > 1
        else result
        for result in results
    )


def check_ended(seen: Overview) -> None:
    """Raise IncompleteError where a study has trials left, saying what is missing."""
    total = len(seen.counted)
    if left := total - len(seen.ended):
        raise IncompleteError(
            f"the study '{seen.study}' is not finished: {left} of {counted(total, 'trial')} left"
            f"{_missing(seen)}; go on with the command that began it"
        )


def _missing(seen: Overview) -> str:
    """The seeds that an unfinished plan lacks."""
    identity = seen.identity
    if not identity.configurations:
        return ""
    wanted = planned_values(identity.configurations, identity.seed, range(len(seen.counted)), list)
    ended = {(row.lr, row.batch_size, row.seed) for row in seen.ended}
    seeds = {v["seed"] for v in wanted if (v["lr"], v["batch_size"], v["seed"]) not in ended}
    return f" (of seeds {ranges(seeds)})"


def _run(trial: FrozenTrial) -> RunResult:
    attrs, reported = trial.user_attrs, trial.intermediate_values
    return RunResult(
        number=trial.number,
        lr=trial.params["lr"],
        batch_size=trial.params["batch_size"],
        seed=trial.params.get("seed", 0),
        outcome=Outcome(attrs["outcome"]),
        value=trial.value,
        val_accuracy=reported[max(reported)] if reported else None,
        test=attrs.get(TEST, {}),
        curve=tuple(attrs.get(CURVE, ())),
        computed=attrs.get(COMPUTED, {}),
        diverged=attrs.get("diverged"),
        mlflow_run_id=attrs.get("mlflow_run_id"),
    )
