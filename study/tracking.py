"""Where trials are recorded: the calls that the service makes, and those calls switched off."""

import http.client
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from objectives.metrics import RungMetrics
from objectives.objective import Result
from study.errors import TrackingError
from study.settings import TRACKING_OFF, is_server, shown_address

PROBE_TIMEOUT_S = 5


@dataclass(frozen=True)
class StudyRuns:
    """Where a study is recorded."""

    experiment_id: str
    parent_run_id: str


@dataclass(frozen=True)
class TrialLabel:
    """What identifies a trial's run; the tag `trial_key` is the truth, the rest is for people."""

    study: str
    study_uuid: str
    number: int

    @property
    def key(self) -> str:
        """Unique over all stores."""
        return f"{self.study_uuid}/{self.number}"


class NullTracker:
    """Tracking switched off: the same calls, and nothing is recorded."""

    def open_study(
        self, study: str, uuid: str, params: Mapping[str, Any], artifacts: Path
    ) -> StudyRuns | None:
        """Find or make the study's experiment and parent run."""
        return None

    def open_trial(
        self, runs: StudyRuns | None, label: TrialLabel, params: Mapping[str, Any]
    ) -> str | None:
        """Find or make the trial's run, mark it running, return its id."""
        return None

    def log_rung(self, run_id: str | None, metrics: RungMetrics) -> None:
        """Record one rung under its number, unless it is there."""

    def log_weights(self, run_id: str | None, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights of the study's best trial."""

    def drop_weights(self, runs: StudyRuns | None, keep: str | None) -> None:
        """Delete the weights of all trials but run `keep`."""

    def put_back(self, run_id: str | None) -> None:
        """The trial waits again."""

    def close_trial(self, run_id: str | None, result: Result, state: str) -> None:
        """Record the outcome and end the run."""

    def close_study(self, runs: StudyRuns | None, finished: bool) -> None:
        """Say on the parent run whether all trials have ended."""

    def disconnect(self) -> None:
        """Close the connections to where things are recorded."""


def open_tracker(uri: str) -> NullTracker:
    """The tracker at `uri`, which `probe_tracking` has found to answer."""
    if uri == TRACKING_OFF:
        return NullTracker()
    from study.mlflow_tracker import MlflowTracker  # takes two seconds

    return MlflowTracker(uri)


def probe_tracking(uri: str) -> None:
    """Raise TrackingError within 5 s if no MLflow server answers at an http address.

    A database is probed as such when it is opened.
    """
    if not is_server(uri):
        return
    shown = shown_address(uri)
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_TIMEOUT_S):
            return
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TrackingError(
            f"MLflow at {shown} does not answer ({error}); start it, or set --mlflow or "
            f"MLFLOW_TRACKING_URI ('{TRACKING_OFF}' switches tracking off)"
        ) from error
