"""What a study looks like now: one read of the store, for tables, summaries and JSON."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select

from objectives.outcome import Outcome
from study.identity import UUID_KEY, StudyIdentity, identity_of
from study.plan import TEST
from study.schema import leases
from study.slots import TOTAL_KEY
from study.storage import Store

_OWN_PARAMS = ("lr", "batch_size", "seed")
MODEL_BASED = ("tpe", "gp")


@dataclass(frozen=True)
class TrialRow:
    """One trial."""

    number: int
    state: str  # Optuna's
    outcome: str  # ours; for an open trial "running" or "waiting"
    lr: float | None = None
    batch_size: int | None = None
    seed: int | None = None  # of its own, where the trials were planned
    others: dict[str, Any] = field(default_factory=dict)  # searched beside those, by name
    val_accuracy: float | None = None  # last reported
    test_accuracy: float | None = None  # of a planned trial that came to its end
    images_seen: int = 0
    rungs: tuple[int, ...] = ()  # reported
    suggested_by: str | None = None
    attempt: int = 0
    worker: str | None = None
    started: datetime | None = None
    finished: datetime | None = None
    mlflow_run_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Overview:
    """A study and its trials, without withdrawn slots."""

    study: str
    uuid: str
    identity: StudyIdentity
    trials: tuple[TrialRow, ...]  # also those that are still to be made: they wait
    source: optuna.Study = field(compare=False, repr=False)

    @property
    def outcomes(self) -> dict[str, int]:
        """Trials by outcome."""
        return dict(Counter(row.outcome for row in self.trials))

    @property
    def counted(self) -> list[TrialRow]:
        """The trials that count towards the study's total: all but failed ones."""
        return [row for row in self.trials if row.outcome != Outcome.FAILED]

    @property
    def ended(self) -> list[TrialRow]:
        """The counted trials that have ended."""
        return [row for row in self.counted if row.finished is not None]

    @property
    def best(self) -> TrialRow | None:
        """The trained-out trial of the highest validation accuracy, of equal ones the first."""
        complete = [row for row in self.trials if row.outcome == Outcome.COMPLETE]
        return max(complete, key=lambda row: (row.val_accuracy or 0.0, -row.number), default=None)

    @property
    def model_based(self) -> int:
        """Trials whose values a sampler inferred from earlier trials."""
        return sum(row.suggested_by in MODEL_BASED for row in self.counted)

    @property
    def images_trained(self) -> int:
        """Images trained on by all trials."""
        return sum(row.images_seen for row in self.trials)

    @property
    def epochs_trained(self) -> float:
        """Epochs' worth of images trained by all trials."""
        return self.images_trained / self.identity.train_images

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "study": self.study,
            "uuid": self.uuid,
            "identity": self.identity.as_dict(),
            "outcomes": self.outcomes,
            "epochs_trained": self.epochs_trained,
            "model_based": self.model_based,
            "best": asdict(self.best) if self.best else None,
            "trials": [asdict(row) for row in self.trials],
        }


def overview(store: Store, study: optuna.Study) -> Overview | None:
    """Read `study`; None if it is not one of ours."""
    identity = identity_of(study)
    if identity is None:
        return None
    trials = study.get_trials(deepcopy=False)
    held = _leases(store, [trial._trial_id for trial in trials])
    rows = [_row(trial, *held.get(trial._trial_id, (0, None, 0))) for trial in trials]
    kept = [row for row in rows if row.outcome != "withdrawn"]
    kept += _to_be_made(study, rows, kept)
    return Overview(study.study_name, str(study.user_attrs[UUID_KEY]), identity, tuple(kept), study)


def _to_be_made(
    study: optuna.Study, made: list[TrialRow], kept: list[TrialRow]
) -> Iterator[TrialRow]:
    """The slots of a large study that are made only when earlier ones have been claimed."""
    total = int(study.user_attrs.get(TOTAL_KEY, 0))
    counted = sum(row.outcome != Outcome.FAILED for row in kept)
    for number in range(len(made), len(made) + total - counted):
        yield TrialRow(number, TrialState.WAITING.name, "waiting")


def _leases(store: Store, trial_ids: list[int]) -> dict[int, tuple[int, str, int]]:
    """Attempt, worker and images seen of each trial that was ever claimed."""
    if not trial_ids:
        return {}
    columns = (leases.c.trial_id, leases.c.attempt, leases.c.worker, leases.c.images_seen)
    query = select(*columns).where(leases.c.trial_id.between(min(trial_ids), max(trial_ids)))
    with store.engine.connect() as connection:
        return {row[0]: (row[1], row[2], row[3]) for row in connection.execute(query)}


def _row(trial: FrozenTrial, attempt: int, worker: str | None, images_seen: int) -> TrialRow:
    attrs = trial.user_attrs
    is_open = not trial.state.is_finished()
    reported = trial.intermediate_values
    return TrialRow(
        number=trial.number,
        state=trial.state.name,
        outcome=trial.state.name.lower() if is_open else attrs.get("outcome", "failed"),
        lr=trial.params.get("lr"),
        batch_size=trial.params.get("batch_size"),
        seed=trial.params.get("seed"),
        others={name: v for name, v in trial.params.items() if name not in _OWN_PARAMS},
        val_accuracy=reported[max(reported)] if reported else None,
        test_accuracy=attrs.get(TEST, {}).get("test_accuracy"),
        images_seen=images_seen
        if trial.state == TrialState.RUNNING
        else attrs.get("images_seen", 0),
        rungs=tuple(sorted(reported)),
        suggested_by=attrs.get("suggested_by"),
        attempt=attempt,
        worker=worker,
        started=trial.datetime_start,
        finished=trial.datetime_complete,
        mlflow_run_id=attrs.get("mlflow_run_id"),
        reason=attrs.get("reason"),
    )
