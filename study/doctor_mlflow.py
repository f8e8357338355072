"""What the doctor looks at in MLflow: whether it answers, and says what Optuna says."""

import time
from collections.abc import Iterator
from functools import partial

import optuna

from study.agreement import differences
from study.errors import VersionError
from study.experiments import experiment_of
from study.finding import Finding, carried_out
from study.mlflow_errors import errors_told
from study.mlflow_tracker import MlflowTracker
from study.overview import Overview, overview
from study.settings import Settings
from study.storage import CREATE_LOCK, Store, tracking_uri
from study.studies import MLFLOW_KEY, find_study, runs_of
from study.tracking import StudyRuns, probe_tracking
from study.words import counted

RECHECK_S = 2.0  # for records that are on their way to arrive
MOST_SHOWN = 5  # differences


def check_mlflow(settings: Settings, store: Store | None) -> Iterator[Finding]:
    """Whether MLflow answers, and says of each study what Optuna says.

    Without a store the latter is left out, and a database beside the studies as well.
    """
    settings.check()
    if settings.is_tracking_off:
        yield Finding("MLflow", True, "tracking is off")
        return
    uri = settings.mlflow_uri if store is None else tracking_uri(settings.mlflow_uri, store)
    if uri is None:
        return
    tracker = _connected(uri, store)
    try:
        yield Finding("MLflow", True, f"{settings.mlflow_label} answers")
        if store is not None:
            for name in sorted(optuna.get_all_study_names(store.storage)):
                check = partial(_check, store, tracker, settings.mlflow_address, name)
                yield from carried_out(f"study {name}", check)
    finally:
        tracker.disconnect()


def _connected(uri: str, store: Store | None) -> MlflowTracker:
    """Raises TrackingError where MLflow does not answer."""
    probe_tracking(uri)
    if store is None:
        tracker = MlflowTracker(uri)
    else:
        with store.locked(CREATE_LOCK):  # the first to come makes MLflow's tables
            tracker = MlflowTracker(uri)
    with errors_told():
        tracker.client.search_experiments(max_results=1)
    return tracker


def _check(
    store: Store, tracker: MlflowTracker, address: str | None, name: str
) -> Iterator[Finding]:
    try:
        seen = overview(store, find_study(store, name))
    except VersionError:
        return  # of another version, as the check of its data has said
    if seen is None:
        return
    runs = runs_of(seen.source)
    if runs is None:
        yield Finding(f"study {name}", True, "was never recorded in MLflow")
    else:
        yield _missing(seen, runs, tracker, address) or _compared(seen, runs, tracker)


def _missing(
    seen: Overview, runs: StudyRuns, tracker: MlflowTracker, address: str | None
) -> Finding | None:
    """What to say of a study that this MLflow does not have; None: it has it."""
    subject, number = f"study {seen.study}", runs.experiment_id
    experiment = experiment_of(tracker, seen.uuid, number)
    if experiment is None:
        place = seen.source.user_attrs.get(MLFLOW_KEY)
        if place != address:
            told = f"is recorded in {place or 'the database beside'}, not in the MLflow asked here"
            return Finding(subject, True, told)
        advice = "give the MLflow that it was begun with"
        return Finding(subject, False, f"its experiment {number} is not in MLflow", advice)
    if experiment.lifecycle_stage == "active":
        return None
    advice = f"restore it with: mlflow experiments restore -x {number}"
    return Finding(subject, False, f"its experiment {number} in MLflow was deleted", advice)


def _compared(seen: Overview, runs: StudyRuns, tracker: MlflowTracker) -> Finding:
    lines = differences(seen, tracker.curves(runs))
    if lines:
        time.sleep(RECHECK_S)
        still = set(differences(seen, tracker.curves(runs)))
        lines = [line for line in lines if line in still]
    subject = f"study {seen.study}"
    if not lines:
        ended = sum(row.finished is not None for row in seen.trials)
        return Finding(subject, True, f"MLflow agrees on {counted(ended, 'ended trial')}")
    shown = lines[:MOST_SHOWN]
    if len(lines) > MOST_SHOWN:
        shown.append(f"and {len(lines) - MOST_SHOWN} more, which --json lists")
    told = f"{counted(len(lines), 'difference')} between Optuna and MLflow: {'; '.join(shown)}"
    advice = "records may wait where a worker died: run 'bnvit-study sync' there"
    return Finding(subject, False, told, advice, tuple(lines))
