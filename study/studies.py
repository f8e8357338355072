"""Studies in a store: found by name, stopped, listed."""

import logging

import optuna

from models.switches import nearest
from study.errors import UnknownStudyError, VersionError
from study.identity import IDENTITY_KEY
from study.overview import Overview, overview
from study.slots import STOP_KEY, TOTAL_KEY
from study.storage import Store
from study.tracking import StudyRuns

VERSIONS_KEY = "bnvit:versions"  # attribute: of the packages that it was begun with
CHECKPOINTS_KEY = "bnvit:checkpoints"  # attribute: where all nodes find checkpoints
SOURCE_KEY = "bnvit:source"  # attribute: the search that a fit took its values from
SOURCE_TRIALS_KEY = "bnvit:source_trials"  # attribute: how many trials that search had by then
MLFLOW_KEY = "bnvit:mlflow"  # attribute: address of its MLflow as given, without a password

log = logging.getLogger(__name__)


def find_study(store: Store, name: str) -> optuna.Study:
    """The study called `name`; raises UnknownStudyError naming the nearest."""
    try:
        return optuna.load_study(study_name=name, storage=store.storage)
    except KeyError:
        names = optuna.get_all_study_names(store.storage)
        hint = nearest(name, names) if names else "; there are none yet"
        raise UnknownStudyError(f"no study '{name}'{hint}") from None


def is_blank(study: optuna.Study) -> bool:
    """Whether `study` has no identity yet: it is being created, or whoever created it died."""
    is_ours = study.direction == optuna.study.StudyDirection.MAXIMIZE
    return is_ours and IDENTITY_KEY not in study.user_attrs and not study.get_trials(deepcopy=False)


def is_being_created(study: optuna.Study) -> bool:
    """Whether it is still to be told where the study's runs go, or how many trials it has."""
    try:
        attrs = study.user_attrs
        return TOTAL_KEY not in attrs if IDENTITY_KEY in attrs else is_blank(study)
    except KeyError:  # it was deleted
        return False


def show_study(store: Store, name: str) -> Overview:
    """How the study called `name` stands; raises UnknownStudyError if it is not one of ours."""
    seen = overview(store, find_study(store, name))
    if seen is None:
        raise UnknownStudyError(f"the study '{name}' was not made by bnvit-study")
    return seen


def all_overviews(store: Store) -> list[Overview]:
    """Every study of ours in the store, by name; one that cannot be read here is only named."""
    found = []
    for name in sorted(optuna.get_all_study_names(store.storage)):
        try:
            seen = overview(store, find_study(store, name))
        except VersionError as error:
            log.warning("%s", error)
            continue
        except UnknownStudyError:  # deleted this moment
            continue
        if seen is not None:
            found.append(seen)
    return found


def pages(store: Store) -> list[tuple[str, int, str | None]]:
    """Name, Optuna id and MLflow experiment id of every study, by name."""
    studies = sorted(store.storage.get_all_studies(), key=lambda study: study.study_name)
    return [
        (study.study_name, study._study_id, study.user_attrs.get("mlflow_experiment_id"))
        for study in studies
    ]


def runs_of(study: optuna.Study) -> StudyRuns | None:
    """Where a study is recorded in MLflow; None if it never was."""
    experiment = study.user_attrs.get("mlflow_experiment_id")
    parent = study.user_attrs.get("mlflow_parent_run_id")
    return StudyRuns(str(experiment), str(parent)) if experiment and parent else None


def is_stopped(study: optuna.Study) -> bool:
    """Whether workers were asked to leave the study."""
    return bool(study.user_attrs.get(STOP_KEY))


def set_stopped(study: optuna.Study, stopped: bool) -> None:
    """Ask the study's workers to finish their trials and leave, or take that back."""
    study.set_user_attr(STOP_KEY, stopped)
