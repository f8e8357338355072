"""What a trial tells while it trains: to a spool on disk, never to MLflow itself."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from torch import Tensor

from objectives.card import Card, save
from objectives.metrics import RungMetrics
from objectives.objective import Result
from study.identity import UUID_KEY
from study.spool import Spool
from study.spool_line import Line
from study.tracking import StudyRuns, TrialLabel


class NullRecorder:
    """Tracking switched off: the same calls, and nothing is recorded."""

    def open(self, params: Mapping[str, Any]) -> None:
        """An attempt at the trial begins."""

    def rung(self, metrics: RungMetrics) -> None:
        """The trial has reached a rung; what is recorded of it already stays as it is."""

    def put_back(self) -> None:
        """The trial waits again."""

    def weights(self, weights: Mapping[str, Tensor], card: Card | None = None) -> None:
        """The weights of the trial, which are to be kept as far as is known."""

    def close(self, result: Result, state: str) -> None:
        """The trial has ended; `state` is Optuna's."""


class TrialRecorder(NullRecorder):
    """Keeps an attempt's lines in a spool. Raises OSError where the disk does not take them."""

    def __init__(
        self, spool: Spool, runs: StudyRuns, label: TrialLabel, trial_id: int, attempt: int
    ) -> None:
        self.spool = spool
        self.runs = runs
        self.label = label
        self.trial_id = trial_id
        self.attempt = attempt
        self._value = 0.0  # accuracy at the last rung

    def open(self, params: Mapping[str, Any]) -> None:
        """An attempt at the trial begins."""
        for path in self.spool.folder.glob(f"{self._stem('*')}.*"):
            path.unlink(missing_ok=True)  # weights of older attempts: nobody will ask for them
        self._tell("open", params=dict(params))

    def rung(self, metrics: RungMetrics) -> None:
        """The trial has reached a rung; what is recorded of it already stays as it is."""
        self._value = metrics.val_accuracy
        values = known(metrics)
        self._tell("rung", rung=values.pop("rung"), values=values)

    def put_back(self) -> None:
        """The trial waits again."""
        self._tell("put_back")

    def weights(self, weights: Mapping[str, Tensor], card: Card | None = None) -> None:
        """The weights of the trial, which are to be kept as far as is known, at its end."""
        path = self.spool.folder / f"{self._stem(self.attempt)}.safetensors"
        _save(weights, card, path)
        self._tell("weights", file=path.name, value=self._value)

    def close(self, result: Result, state: str) -> None:
        """The trial has ended; `state` is Optuna's."""
        self._tell(
            "close",
            outcome=result.outcome.value,
            state=state,
            diverged=None if result.diverged is None else asdict(result.diverged),
            test=None if result.test is None else asdict(result.test),
            last=None if result.last is None else result.last.rung,
            reason=result.reason,
            traceback=result.traceback,
        )

    def _stem(self, attempt: int | str) -> str:
        return f"{self.label.study_uuid}-{self.label.number}-{attempt}"

    def _tell(self, op: str, **data: Any) -> None:
        self.spool.append(
            Line(
                op=op,
                study=self.label.study,
                study_uuid=self.label.study_uuid,
                experiment_id=self.runs.experiment_id,
                parent_run_id=self.runs.parent_run_id,
                trial_id=self.trial_id,
                number=self.label.number,
                attempt=self.attempt,
                data=data,
            )
        )


def record_study_end(spool: Spool, study: optuna.Study, runs: StudyRuns, finished: bool) -> None:
    """This process leaves the study; `finished`: because all its trials have ended."""
    spool.append(
        Line(
            op="close_study",
            study=study.study_name,
            study_uuid=str(study.user_attrs[UUID_KEY]),
            experiment_id=runs.experiment_id,
            parent_run_id=runs.parent_run_id,
            data={"finished": finished},
        )
    )


def known(metrics: RungMetrics) -> dict[str, float]:
    """The metrics of a rung that have a value."""
    told = asdict(metrics).items()
    return {key: value for key, value in told if value is not None and not math.isnan(value)}


def _save(weights: Mapping[str, Tensor], card: Card | None, path: Path) -> None:
    """Write the file whole or not at all; raises OSError where the disk does not take it."""
    temporary = path.with_suffix(".tmp")
    try:
        save(temporary, weights, card)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
