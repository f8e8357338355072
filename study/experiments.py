"""A study's experiment in MLflow, and whether that MLflow is the one that it was recorded in.

To be imported where MLflow is about to be used: that takes two seconds.
"""

from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from study.mlflow_errors import errors_told
from study.mlflow_tracker import MlflowTracker

_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second: no id of its kind


def experiment_of(tracker: MlflowTracker, uuid: str, experiment_id: str) -> Experiment | None:
    """The experiment of a study, deleted or not; None if this MLflow has none.

    Another MLflow has another study's experiment under the same id, so its tag decides. Raises
    TrackingError where MLflow cannot be asked.
    """
    with errors_told():
        try:
            found: Experiment = tracker.client.get_experiment(experiment_id)
        except MlflowException as error:
            if error.error_code in _UNKNOWN:
                return None
            raise
    return found if found.tags.get("study_uuid") == uuid else None


def delete_experiment(tracker: MlflowTracker, uuid: str, experiment_id: str) -> bool:
    """Delete a study's experiment, unless it is already; False if this MLflow has none.

    Raises TrackingError where MLflow cannot be asked.
    """
    found = experiment_of(tracker, uuid, experiment_id)
    if found is None:
        return False
    if found.lifecycle_stage == "active":
        with errors_told():
            tracker.client.delete_experiment(experiment_id)
    return True
