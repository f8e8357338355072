"""Where studies are recorded: what is asked of MLflow while nobody trains, and that switched off.

What a trial tells while it trains goes by way of `study.recorder`.
"""

import base64
import http.client
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.errors import TrackingError
from study.settings import TRACKING_OFF, is_server, shown_address

PROBE_TIMEOUT_S = 5
_ADVICE = (
    "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, to what "
    "it knows"
)


class TrackingOutageError(TrackingError):
    """MLflow is away or out of order: the same call may succeed later."""


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


@dataclass(frozen=True)
class TrialRecord:
    """What is recorded of a trial."""

    number: int
    run_id: str
    status: str  # MLflow's: RUNNING, SCHEDULED, FINISHED, FAILED, KILLED
    outcome: str | None
    val_accuracy: dict[int, list[float]]  # by rung; more than one value is a mistake
    other_run_ids: tuple[str, ...]  # of the same trial; any is a mistake


class NullTracker:
    """Tracking switched off: the same calls, and nothing is recorded."""

    def open_study(
        self, study: str, uuid: str, params: Mapping[str, Any], artifacts: Path
    ) -> StudyRuns | None:
        """Find or make the study's experiment and parent run."""
        return None

    def check_study(self, runs: StudyRuns, uuid: str) -> None:
        """Raises TrackingError where what is recorded there is not the study's."""

    def close_study(self, runs: StudyRuns | None, finished: bool, at_ms: int | None = None) -> None:
        """Say on the parent run whether all trials had ended at a time, by default now."""

    def drop_others(self, runs: StudyRuns | None, keep_trial_key: str | None) -> None:
        """Delete the weights of all trials of the study but one."""

    def curves(self, runs: StudyRuns | None) -> dict[int, TrialRecord]:
        """What is recorded of each trial of the study, by its number."""
        return {}

    def keep_files(self, run_id: str, paths: Sequence[Path], folder: str) -> None:
        """Keep files with a run, below `folder` of its artifacts."""

    def disconnect(self) -> None:
        """Close the connections to where things are recorded."""


def open_tracker(uri: str) -> NullTracker:
    """The tracker at `uri`, which `probe_tracking` has found to answer."""
    if uri == TRACKING_OFF:
        return NullTracker()
    from study.mlflow_tracker import MlflowTracker  # takes two seconds

    return MlflowTracker(uri)


def probe_tracking(uri: str) -> None:
    """Raise TrackingOutageError within 5 s if no MLflow server answers at an http address.

    A database is probed as such when it is opened.
    """
    if not is_server(uri):
        return
    shown = shown_address(uri)
    try:
        with urllib.request.urlopen(_health_request(uri), timeout=PROBE_TIMEOUT_S, context=_tls()):
            return
    except urllib.error.HTTPError as error:
        raise TrackingOutageError(
            f"MLflow at {shown} refuses to answer ({error.code} {error.reason}); "
            + (_ADVICE if error.code in (401, 403) else "look at its log")
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TrackingOutageError(
            f"MLflow at {shown} does not answer ({error}); start it, or set --mlflow or "
            f"MLFLOW_TRACKING_URI ('{TRACKING_OFF}' switches tracking off)"
        ) from error


def _health_request(uri: str) -> urllib.request.Request:
    """With the credentials that MLflow's client takes from the environment."""
    request = urllib.request.Request(f"{uri.rstrip('/')}/health")
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{w}") for w in ("USERNAME", "PASSWORD"))
    if user and password:
        told = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {told}")
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    return request


def _tls() -> ssl.SSLContext | None:
    """Trust in the authority that MLflow's client is to trust; None: the system's."""
    path = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    return ssl.create_default_context(cafile=path) if path else None
