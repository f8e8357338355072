"""Whether this node is fit to work on a study: its data, its MLflow, its packages."""

import logging

import optuna

from models.errors import InputError
from objectives.data import SearchData
from study.environment import versions
from study.errors import DataDifferError, TrackingError
from study.identity import UUID_KEY, StudyIdentity
from study.settings import TRACKING_OFF, Settings
from study.studies import MLFLOW_KEY, VERSIONS_KEY
from study.tracking import StudyRuns, TrackingOutageError, open_tracker, probe_tracking

log = logging.getLogger(__name__)


def check_data(name: str, identity: StudyIdentity, data: SearchData) -> None:
    """Raise DataDifferError where `data` are not those that the study was begun with."""
    if data.checksum != identity.data_checksum:
        raise DataDifferError(
            f"the data of study '{name}' ({identity.dataset}) differ on this node: checksum "
            f"{data.checksum[:12]}, not {identity.data_checksum[:12]}; put the same files here"
        )


def check_mlflow(study: optuna.Study, runs: StudyRuns | None, settings: Settings) -> None:
    """Raise InputError where this node would record in an MLflow that does not have the study.

    Nothing would be recorded then. An MLflow at the same address is taken for the right one.
    """
    here, begun = settings.mlflow_address, study.user_attrs.get(MLFLOW_KEY)
    if settings.is_tracking_off or here == begun:
        return
    place = f"in MLflow at {begun}" if begun else "in the database beside the studies"
    told = f"the study '{study.study_name}' is recorded {place}"
    advice = "give it here as well: --mlflow or MLFLOW_TRACKING_URI"
    if not begun:
        advice = "leave out --mlflow and MLFLOW_TRACKING_URI"
    advice += f" ('{TRACKING_OFF}' records nothing)"
    uri = settings.mlflow_uri
    if uri is None:
        raise InputError(f"{told}; {advice}")
    if runs is not None and (lack := _lack(uri, study, runs)):
        raise InputError(f"{told}, and MLflow at {here} {lack}; {advice}")


def compare_versions(study: optuna.Study) -> None:
    """Warn where this node runs other packages than the study was begun with."""
    begun: dict[str, str] = study.user_attrs.get(VERSIONS_KEY, {})
    here = versions()
    differences = [
        f"{package} {here.get(package, 'none')}, not {version}"
        for package, version in begun.items()
        if here.get(package) != version
    ]
    if differences:
        log.warning(
            "study '%s' was begun with other versions than this worker's: %s; "
            "each run records its own",
            study.study_name,
            "; ".join(differences),
        )


def _lack(uri: str, study: optuna.Study, runs: StudyRuns) -> str:
    """Why the MLflow at `uri` will not do for the study; empty if it will."""
    try:
        probe_tracking(uri)
        tracker = open_tracker(uri)
        try:
            tracker.check_study(runs, str(study.user_attrs[UUID_KEY]))
        finally:
            tracker.disconnect()
    except TrackingOutageError as error:
        return f"does not answer ({error.__cause__ or error})"
    except TrackingError:
        return "does not have it"
    return ""
