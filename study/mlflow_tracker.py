"""Studies in MLflow: an experiment and a parent run each, above one run per trial."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import study.mlflow_variables  # noqa: F401 - MLflow reads them while it is imported

# isort: split
from mlflow import MlflowClient
from mlflow.entities import Experiment
from sqlalchemy import Engine

from study import mlflow_runs
from study.connections import bounded
from study.errors import TrackingError
from study.mlflow_errors import errors_told
from study.mlflow_trials import MlflowTrials
from study.settings import is_server
from study.tracking import NullTracker, StudyRuns, TrackingOutageError, TrialRecord

AS_OF_TAG = "as_of_ms"  # of a parent run: when its status was told
# Opens MLflow's pages for training runs; by default it opens those for language models.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

_bounded: WeakSet[Engine] = WeakSet()

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # its errors are raised too


class MlflowTracker(NullTracker):
    """Records in an MLflow tracking server or database; its `trials` are for the replay.

    Raises TrackingOutageError where the same call may succeed later, TrackingError where not.
    """

    def __init__(self, uri: str) -> None:
        """`uri` may carry a password: it is passed on, never printed."""
        self.has_server = is_server(uri)
        with errors_told():
            self.client = MlflowClient(tracking_uri=uri)
        self._engine = getattr(self.client._tracking_client.store, "engine", None)
        if self._engine is not None and self._engine.dialect.driver == "psycopg":
            _bound(self._engine)
        self.trials = MlflowTrials(self.client)

    def open_study(
        self, study: str, uuid: str, params: Mapping[str, Any], artifacts: Path
    ) -> StudyRuns:
        """Find or make the study's experiment and parent run; call it under the study's lock."""
        with errors_told():
            experiment_id = self._experiment(study, uuid, artifacts / uuid)
            found = mlflow_runs.search(self.client, experiment_id, f"tags.study_uuid = '{uuid}'")
            parent = next(iter(found), None) or self.client.create_run(
                experiment_id, run_name=study, tags={"study": study, "study_uuid": uuid}
            )
            if not found:
                mlflow_runs.log_params(self.client, parent, params)
            run_id = str(parent.info.run_id)
            mlflow_runs.set_tags(self.client, run_id, {AS_OF_TAG: str(_now_ms())})
            self.client.update_run(run_id, status="RUNNING")
        return StudyRuns(experiment_id, run_id)

    def check_study(self, runs: StudyRuns, uuid: str) -> None:
        """Raises TrackingError where the experiment is not the study's.

        Not to be let in at all is an outage: it is said of this node, and may be mended.
        """
        try:
            with errors_told():
                experiment = self.client.get_experiment(runs.experiment_id)
        except TrackingError as error:
            if getattr(error.__cause__, "error_code", None) == "PERMISSION_DENIED":
                raise TrackingOutageError(str(error)) from error
            raise
        if experiment.tags.get("study_uuid") != uuid:
            raise TrackingError(f"MLflow's experiment {runs.experiment_id} is another study's")

    def drop_others(self, runs: StudyRuns | None, keep_trial_key: str | None) -> None:
        """Delete the weights of all trials of the study but one."""
        assert runs is not None  # open_study of this tracker returned it
        with errors_told():
            mlflow_runs.drop_weights(self.client, runs.experiment_id, keep_trial_key)

    def close_study(self, runs: StudyRuns | None, finished: bool, at_ms: int | None = None) -> None:
        """Say on the parent run whether all trials had ended at a time, by default now.

        Not if something later is known.
        """
        assert runs is not None
        told_ms = _now_ms() if at_ms is None else at_ms
        with errors_told():
            parent = self.client.get_run(runs.parent_run_id)
            if told_ms < int(parent.data.tags.get(AS_OF_TAG, 0)):
                return
            mlflow_runs.set_tags(self.client, runs.parent_run_id, {AS_OF_TAG: str(told_ms)})
            if finished:
                self.client.set_terminated(runs.parent_run_id, end_time=told_ms)
            else:
                self.client.update_run(runs.parent_run_id, status="SCHEDULED")

    def curves(self, runs: StudyRuns | None) -> dict[int, TrialRecord]:
        """What is recorded of each trial of the study, by its number."""
        assert runs is not None
        with errors_told():
            return mlflow_runs.curves(self.client, runs)

    def weights_kept(self, runs: StudyRuns) -> dict[int, str]:
        """The runs of a study that keep weights, by the number of their trial."""
        with errors_told():
            return mlflow_runs.weights_kept(self.client, runs.experiment_id)

    def download_weights(self, run_id: str, folder: Path) -> Path:
        """The weights that a run keeps, as a file in `folder`. Raises TrackingError."""
        with errors_told():
            weights = mlflow_runs.WEIGHTS_FILE
            return Path(self.client.download_artifacts(run_id, weights, str(folder)))

    def dataset(self, run_id: str) -> str | None:
        """The data set that a trial's run was trained on; None where it does not say."""
        with errors_told():
            found: str | None = self.client.get_run(run_id).data.params.get("dataset")
        return found

    def keep_files(self, run_id: str, paths: Sequence[Path], folder: str) -> None:
        """Keep files with a run, below `folder` of its artifacts; those of a name are replaced."""
        with errors_told():
            for path in paths:
                self.client.log_artifact(run_id, str(path), folder)

    def disconnect(self) -> None:
        """Close the connections to MLflow's database; MLflow itself never does."""
        if self._engine is not None:
            self._engine.dispose()

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


def _bound(engine: Engine) -> None:
    if engine not in _bounded:  # MLflow has one engine for all its clients
        _bounded.add(engine)
        bounded(engine)


def _now_ms() -> int:
    return int(time.time() * 1000)
