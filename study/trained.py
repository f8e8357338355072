"""Trained weights by what people call them: a study, an MLflow run, a file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from models.errors import InputError
from study.errors import TrackingError
from study.identity import StudyIdentity
from study.settings import Settings
from study.storage import open_store, tracking_uri
from study.studies import show_study

if TYPE_CHECKING:
    from study.mlflow_tracker import MlflowTracker


@dataclass(frozen=True)
class RunPlace:
    """A run and the MLflow that has it."""

    run_id: str
    tracking_uri: str = field(repr=False)  # may carry a password


@dataclass(frozen=True)
class Trained:
    """A file of weights, while the context lasts that gave it, and where it comes from."""

    path: Path
    source: str  # for people
    run: RunPlace | None = None  # None: it is a file
    study: StudyIdentity | None = None  # of which it is the best


@contextmanager
def trained_weights(target: str, settings: Settings) -> Iterator[Trained]:
    """The weights that `target` names: a study (its best), an MLflow run, or a file.

    Raises InputError where there are none.
    """
    if is_file_name(target):
        if not Path(target).is_file():
            raise InputError(f"there is no file {target}")
        yield Trained(Path(target), f"the file {target}")
        return
    with open_store(settings) as store, TemporaryDirectory() as folder:
        run_id: str | None = target
        source, identity = f"MLflow run {target}", None
        if not is_run_id(target):
            seen = show_study(store, target)
            if seen.best is None:
                raise InputError(f"the study '{target}' has no trial that was trained to the end")
            run_id, identity = seen.best.mlflow_run_id, seen.identity
            source = f"the best of study {target}, trial {seen.best.number}"
        if run_id is None or settings.is_tracking_off:
            raise InputError(f"no weights of '{target}' were kept: it is not recorded in MLflow")
        place = RunPlace(run_id, tracking_uri(settings.mlflow_uri, store))
        yield Trained(_download(place, Path(folder)), source, place, identity)


def is_file_name(target: str) -> bool:
    """Whether `target` is a file, or is written like one."""
    looks_so = "/" in target or Path(target).suffix in (".safetensors", ".pt", ".pth")
    return looks_so or Path(target).is_file()


def is_run_id(target: str) -> bool:
    """Whether `target` is written like an MLflow run."""
    return re.fullmatch(r"[0-9a-f]{32}", target) is not None


@contextmanager
def tracker_at(place: RunPlace) -> Iterator["MlflowTracker"]:
    """A tracker of the MLflow that has a run, closed at the end."""
    from study.mlflow_tracker import MlflowTracker  # takes two seconds

    tracker = MlflowTracker(place.tracking_uri)
    try:
        yield tracker
    finally:
        tracker.disconnect()


def _download(place: RunPlace, folder: Path) -> Path:
    try:
        with tracker_at(place) as tracker:
            return tracker.download_weights(place.run_id, folder)
    except TrackingError as error:
        raise InputError(
            f"the weights of run {place.run_id} are not to be had ({error})"
        ) from error
