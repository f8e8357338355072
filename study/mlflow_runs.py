"""What is done with runs of MLflow: by way of its client, raising its errors."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param, Run, RunTag, ViewType
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from study.tracking import StudyRuns, TrialRecord

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_TAG = "has_weights"
ACCURACY = "val_accuracy"
READERS = 8  # threads that read curves
UPLOAD_BYTES_PER_S = 5_000_000  # the slowest that is waited for


def search(client: MlflowClient, experiment_id: str, query: str = "") -> list[Run]:
    """All active runs of an experiment that match."""
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], query, ViewType.ACTIVE_ONLY, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set them all in one request."""
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def log_params(client: MlflowClient, run: Run, params: Mapping[str, Any]) -> None:
    """Log what is not there yet: a parameter once logged cannot change."""
    flat = [(key, str(value)) for key, value in _flatten(params)]
    missing = [Param(key, value) for key, value in flat if key not in run.data.params]
    client.log_batch(run.info.run_id, params=missing)


def keep_weights(client: MlflowClient, run_id: str, path: Path) -> None:
    """Upload `path` under the name that weights have, tagged first so that none goes unseen."""
    client.set_tag(run_id, WEIGHTS_TAG, "true")
    with TemporaryDirectory() as folder, _time_for(path.stat().st_size):
        named = Path(folder) / WEIGHTS_FILE
        named.symlink_to(path.absolute())
        client.log_artifact(run_id, str(named))


def drop_weights(client: MlflowClient, experiment_id: str, keep_trial_key: str | None) -> None:
    """Delete the weights of all runs but one trial's."""
    for run in search(client, experiment_id, f"tags.{WEIGHTS_TAG} = 'true'"):
        if run.data.tags.get("trial_key") == keep_trial_key:
            continue
        repository = get_artifact_repository(run.info.artifact_uri, client.tracking_uri)
        if WEIGHTS_FILE in {file.path for file in repository.list_artifacts()}:
            repository.delete_artifacts(WEIGHTS_FILE)
        client.delete_tag(run.info.run_id, WEIGHTS_TAG)


def weights_kept(client: MlflowClient, experiment_id: str) -> dict[int, str]:
    """The runs that keep weights, by the number of their trial."""
    found = search(client, experiment_id, f"tags.{WEIGHTS_TAG} = 'true'")
    ids = {int(run.data.tags["trial_number"]): str(run.info.run_id) for run in found}
    return dict(sorted(ids.items()))


def curves(client: MlflowClient, runs: StudyRuns) -> dict[int, TrialRecord]:
    """What is recorded of each trial, by its number; a request per run, several at a time."""
    by_number: dict[int, list[Run]] = {}
    for run in search(client, runs.experiment_id):
        if "trial_key" in run.data.tags:
            by_number.setdefault(int(run.data.tags["trial_number"]), []).append(run)
    with ThreadPoolExecutor(READERS) as pool:
        records = pool.map(lambda item: _record(client, *item), sorted(by_number.items()))
        return {record.number: record for record in records}


def _record(client: MlflowClient, number: int, runs: list[Run]) -> TrialRecord:
    run, *others = sorted(runs, key=lambda run: str(run.info.run_id))
    values: dict[int, list[float]] = {}
    if ACCURACY in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, ACCURACY):
            values.setdefault(metric.step, []).append(metric.value)
    return TrialRecord(
        number=number,
        run_id=str(run.info.run_id),
        status=str(run.info.status),
        outcome=run.data.tags.get("outcome"),
        val_accuracy=dict(sorted(values.items())),
        other_run_ids=tuple(str(other.info.run_id) for other in others),
    )


@contextmanager
def _time_for(size_bytes: int) -> Iterator[None]:
    """A server answers an upload when it has passed it on; MLflow has one limit for all calls."""
    usual_s = MLFLOW_HTTP_REQUEST_TIMEOUT.get()
    MLFLOW_HTTP_REQUEST_TIMEOUT.set(usual_s + size_bytes // UPLOAD_BYTES_PER_S)
    try:
        yield
    finally:
        MLFLOW_HTTP_REQUEST_TIMEOUT.set(usual_s)


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
