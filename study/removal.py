"""Deleting a study: whatever of it is kept, and nothing while somebody trains it."""

import shlex
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState
from sqlalchemy import Connection, func, select

from models.errors import InputError
from study import slots
from study.docket import open_checkpoints
from study.errors import StorageError, TrackingError
from study.schema import leases, trials
from study.settings import Settings
from study.slots import TOTAL_KEY
from study.storage import Store, tracking_uri
from study.studies import runs_of, set_stopped, show_study
from study.tracking import StudyRuns, probe_tracking
from study.words import counted

CHECKPOINTS_TIMEOUT_S = 10  # to delete the copies that other nodes find


@dataclass(frozen=True)
class Removable:
    """A study of ours that nobody trains."""

    study: optuna.Study
    uuid: str
    trials: int  # that were begun or wait
    runs: StudyRuns | None  # None: never recorded in MLflow


def find_removable(store: Store, name: str) -> Removable:
    """The study called `name`, to be deleted.

    Raises UnknownStudyError if it is not there or not ours, InputError while it is trained.
    """
    seen = show_study(store, name)
    with store.engine.connect() as connection:
        _refuse_running(connection, seen.source)
    return Removable(seen.source, seen.uuid, len(seen.trials), runs_of(seen.source))


def remove(store: Store, settings: Settings, found: Removable) -> list[str]:
    """Delete a study; returns what was done, a line each.

    What lies outside the store goes first: until the study itself is gone, this can be repeated.
    Raises InputError, having deleted nothing, if a worker has taken up a trial meanwhile.
    """
    settings.check()
    name = found.study.study_name
    _close(store, found.study)
    lines = [_remove_experiment(store, settings, found), _remove_checkpoints(settings, found)]
    optuna.delete_study(study_name=name, storage=store.storage)
    lines.append(f"study '{name}': deleted with {counted(found.trials, 'trial')}")
    return [line for line in lines if line]


def _close(store: Store, study: optuna.Study) -> None:
    """End its open trials and all leases, so that no worker can train or make any of them."""
    mine = trials.c.study_id == study._study_id
    with store.engine.begin() as connection:
        slots.lock_filling(connection, study)
        connection.execute(select(trials.c.trial_id).where(mine).with_for_update())
        _refuse_running(connection, study)
        study.set_user_attr(TOTAL_KEY, 0)  # or an idle worker would replace them
        set_stopped(study, True)
        ids = select(trials.c.trial_id).where(mine)
        connection.execute(leases.delete().where(leases.c.trial_id.in_(ids)))
        connection.execute(
            trials.update()
            .where(mine, trials.c.state.in_((TrialState.WAITING, TrialState.RUNNING)))
            .values(state=TrialState.FAIL, datetime_complete=func.timezone("UTC", func.now()))
        )


def _refuse_running(connection: Connection, study: optuna.Study) -> None:
    query = (
        select(func.count())
        .select_from(trials)
        .join(leases, leases.c.trial_id == trials.c.trial_id)
        .where(
            trials.c.study_id == study._study_id,
            trials.c.state == TrialState.RUNNING,
            leases.c.expires_at > func.now(),
        )
    )
    running = connection.scalar(query) or 0
    if running:
        verb = "is" if running == 1 else "are"
        raise InputError(
            f"{counted(running, 'trial')} of '{study.study_name}' {verb} running: stop it first "
            f"with 'bnvit-study stop {shlex.quote(study.study_name)}' and wait, or stop its workers"
        )


def _remove_experiment(store: Store, settings: Settings, found: Removable) -> str:
    """As far as MLflow can be reached: a line on what became of it, empty if there is none."""
    if found.runs is None:
        return ""
    experiment_id = found.runs.experiment_id
    kept = f"MLflow: experiment {experiment_id} was not deleted"
    later = f"delete it there with: mlflow experiments delete -x {experiment_id}"
    if settings.is_tracking_off:
        return f"{kept}, as tracking is off; {later}"
    try:
        is_deleted = _delete_experiment(store, settings, found.uuid, experiment_id)
    except (TrackingError, StorageError) as error:
        return f"{kept} ({error}); {later}"
    if not is_deleted:
        return f"{kept}: it is not in this MLflow ({settings.mlflow_label}); {later}"
    return f"MLflow: experiment {experiment_id} deleted; it can be restored until 'mlflow gc'"


def _delete_experiment(store: Store, settings: Settings, uuid: str, experiment_id: str) -> bool:
    uri = tracking_uri(settings.mlflow_uri, store)
    probe_tracking(uri)
    from study.experiments import delete_experiment  # takes two seconds
    from study.mlflow_tracker import MlflowTracker

    tracker = MlflowTracker(uri)
    try:
        return delete_experiment(tracker, uuid, experiment_id)
    finally:
        tracker.disconnect()


def _remove_checkpoints(settings: Settings, found: Removable) -> str:
    """A line on what became of them."""
    checkpoints = open_checkpoints(found.study, settings, found.runs)
    try:
        checkpoints.sweep()
        if checkpoints.flush(CHECKPOINTS_TIMEOUT_S):
            return "checkpoints: deleted"
        return f"checkpoints: copies for other nodes, {found.uuid}, could not be deleted"
    finally:
        checkpoints.close()
