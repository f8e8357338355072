"""One MLflow run per trial, whatever its attempts, below one parent run per study."""

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Read by MLflow while it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is ours
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from safetensors.torch import save_file
from torch import Tensor

from objectives.metrics import RungMetrics
from objectives.objective import Outcome, Result
from study.errors import TrackingError
from study.settings import is_server
from study.tracking import NullTracker, StudyRuns, TrialLabel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Opens MLflow's pages for training runs; by default it opens those for language models.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class MlflowTracker(NullTracker):
    """Records in an MLflow tracking server or database."""

    def __init__(self, uri: str) -> None:
        """`uri` may carry a password: it is passed on, never printed."""
        self.has_server = is_server(uri)
        with _errors_told():
            self.client = MlflowClient(tracking_uri=uri)

    def open_study(
        self, study: str, uuid: str, params: Mapping[str, Any], artifacts: Path
    ) -> StudyRuns:
        """Find or make the study's experiment and parent run; call it under the study's lock."""
        with _errors_told():
            experiment_id = self._experiment(study, uuid, artifacts / uuid)
            found = self._find(experiment_id, "study_uuid", uuid)
            parent = found or self.client.create_run(
                experiment_id, run_name=study, tags={"study": study, "study_uuid": uuid}
            )
            if found is None:
                self._log_params(parent, params)
            self.client.update_run(parent.info.run_id, status="RUNNING")
        return StudyRuns(experiment_id, parent.info.run_id)

    def open_trial(
        self, runs: StudyRuns | None, label: TrialLabel, params: Mapping[str, Any]
    ) -> str:
        """Find or make the trial's run, mark it running, return its id."""
        assert runs is not None  # open_study of this tracker returned it
        with _errors_told():
            run = self._find(runs.experiment_id, "trial_key", label.key)
            if run is None:
                tags = {
                    "mlflow.parentRunId": runs.parent_run_id,
                    "trial_key": label.key,
                    "study": label.study,
                    "trial_number": str(label.number),
                }
                name = f"{label.study} #{label.number}"
                run = self.client.create_run(runs.experiment_id, tags=tags, run_name=name)
            run_id = str(run.info.run_id)
            self._set_tags(run_id, {"outcome": "running", "optuna_state": "RUNNING"})
            self.client.update_run(run_id, status="RUNNING")
            if CONFIG_FILE not in {file.path for file in self.client.list_artifacts(run_id)}:
                self._log_params(run, params)
                self.client.log_dict(run_id, dict(params), CONFIG_FILE)
        return run_id

    def log_rung(self, run_id: str | None, metrics: RungMetrics) -> None:
        """Record one rung under its number, unless it is there. All its metrics or none."""
        assert run_id is not None
        with _errors_told():
            history = self.client.get_metric_history(run_id, "epoch")
            if metrics.rung in {metric.step for metric in history}:
                return
            now_ms = int(time.time() * 1000)
            told = asdict(metrics).items()
            values = {key: value for key, value in told if key != "rung" and value is not None}
            self.client.log_batch(
                run_id,
                metrics=[Metric(key, value, now_ms, metrics.rung) for key, value in values.items()],
            )

    def log_weights(self, run_id: str | None, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights of the study's best trial."""
        assert run_id is not None
        with tempfile.TemporaryDirectory() as folder, _errors_told():
            path = Path(folder) / WEIGHTS_FILE
            self.client.set_tag(run_id, "has_weights", "true")
            save_file(dict(weights), path)
            self.client.log_artifact(run_id, str(path))

    def drop_weights(self, runs: StudyRuns | None, keep: str | None) -> None:
        """Delete the weights of all trials but run `keep`."""
        assert runs is not None
        with _errors_told():
            for run in self._search(runs.experiment_id, "tags.has_weights = 'true'"):
                if run.info.run_id != keep:
                    repository = get_artifact_repository(
                        run.info.artifact_uri, self.client.tracking_uri
                    )
                    repository.delete_artifacts(WEIGHTS_FILE)
                    self.client.delete_tag(run.info.run_id, "has_weights")

    def put_back(self, run_id: str | None) -> None:
        """The trial waits again."""
        assert run_id is not None
        with _errors_told():
            self._set_tags(run_id, {"outcome": "waiting", "optuna_state": "WAITING"})
            self.client.update_run(run_id, status="SCHEDULED")

    def close_trial(self, run_id: str | None, result: Result, state: str) -> None:
        """Record the outcome and end the run."""
        if run_id is None:
            return  # it ended before it had a run
        tags = {"outcome": result.outcome.value, "optuna_state": state}
        if result.diverged is not None:
            tags["diverged"] = json.dumps(asdict(result.diverged))
        if result.reason:
            tags["reason"] = result.reason
        failed = result.outcome is Outcome.FAILED
        with _errors_told():
            self._set_tags(run_id, tags)
            if result.traceback:
                self.client.log_text(run_id, result.traceback, "traceback.txt")
            self.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def close_study(self, runs: StudyRuns | None, finished: bool) -> None:
        """Say on the parent run whether all trials have ended."""
        assert runs is not None
        with _errors_told():
            if finished:
                self.client.set_terminated(runs.parent_run_id)
            else:
                self.client.update_run(runs.parent_run_id, status="SCHEDULED")

    def disconnect(self) -> None:
        """Close the connections to MLflow's database; MLflow itself never does."""
        engine = getattr(self.client._tracking_client.store, "engine", None)
        if engine is not None:
            engine.dispose()

    def _experiment(self, study: str, uuid: str, artifacts: Path) -> str:
        """The study's experiment; another study of that name in this MLflow keeps its own."""
        for name in (study, f"{study}-{uuid[:8]}"):
            experiment: Experiment | None = self.client.get_experiment_by_name(name)
            if experiment is None:
                # A server keeps artifacts where all nodes reach them; a bare database cannot.
                location = None if self.has_server else artifacts.absolute().as_uri()
                tags = {"study_uuid": uuid, **EXPERIMENT_TAGS}
                return str(self.client.create_experiment(name, location, tags))
            if experiment.tags.get("study_uuid") != uuid:
                continue
            if experiment.lifecycle_stage == "active":
                return str(experiment.experiment_id)
            raise TrackingError(
                f"the MLflow experiment of study '{study}' was deleted; restore it with 'mlflow "
                f"experiments restore -x {experiment.experiment_id}', or use another --study"
            )
        raise TrackingError(f"MLflow has other experiments called '{study}'; use another --study")

    def _find(self, experiment_id: str, tag: str, value: str) -> Run | None:
        found = self._search(experiment_id, f"tags.{tag} = '{value}'")
        return found[0] if found else None

    def _search(self, experiment_id: str, query: str) -> list[Run]:
        return list(
            self.client.search_runs([experiment_id], query, run_view_type=ViewType.ACTIVE_ONLY)
        )

    def _log_params(self, run: Run, params: Mapping[str, Any]) -> None:
        """Log what is not there yet: a parameter once logged cannot change."""
        flat = [(key, str(value)) for key, value in _flatten(params)]
        missing = [Param(key, value) for key, value in flat if key not in run.data.params]
        self.client.log_batch(run.info.run_id, params=missing)

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


# OSError: artifacts that cannot be written, requests' errors.
_MLFLOW_ERRORS = (MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError)


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except _MLFLOW_ERRORS as error:
        reason = " ".join(str(error).split())
        raise TrackingError(f"MLflow refused: {reason[:300]}") from error


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
