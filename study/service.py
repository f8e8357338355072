"""Create or resume a study, fill its slots, wait, and say how it stands."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import optuna
import torch

from models.switches import nearest
from objectives.data import SearchData, dataset, load_search_data
from objectives.recipe import search_rungs
from study import data_dir, slots
from study.environment import device_of
from study.errors import IdentityError, UnknownStudyError
from study.identity import (
    IDENTITY_KEY,
    UUID_KEY,
    StudyIdentity,
    identity_of,
)
from study.job import Job
from study.overview import Overview, overview
from study.request import Request
from study.samplers import pruner
from study.settings import Settings, postgres_url
from study.stop import Stop
from study.storage import Store, open_store, probe, tracking_uri
from study.tracking import NullTracker, open_tracker, probe_tracking
from study.worker import work

CREATE_LOCK = 7_231_002  # advisory lock around the creation of studies

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Session:
    """A study ready to be worked on, and whether it was there before."""

    job: Job
    request: Request
    is_new: bool

    def overview(self) -> Overview:
        """How the study stands now."""
        seen = overview(self.job.store, self.job.study)
        assert seen is not None  # it was created with an identity
        return seen

    def fill(self, trials: int | None = None) -> None:
        """Make the slots that are missing for the study's total, which `trials` sets."""
        starts = self.job.identity.space.starts(self.job.identity.seed)
        slots.fill(self.job.store, self.job.study, starts, trials)

    def work(self, stop: Stop) -> None:
        """Train in this process until the study has ended or `stop` is set."""
        work(self.job, stop, self.fill)
        seen = self.overview()
        is_done = len(seen.ended) == len(seen.counted)
        if is_done and seen.best is not None:  # a crash may have left weights of others
            with self.job.weights_locked():
                self.job.tracker.drop_weights(self.job.runs, keep=seen.best.mlflow_run_id)
        self.job.tracker.close_study(self.job.runs, finished=is_done)


@contextmanager
def open_session(
    request: Request, settings: Settings, say: Callable[[str], None]
) -> Iterator[Session]:
    """Check everything, then open the store and create or resume the study.

    Nothing is created before all input has been found good. `say` is told what takes time.
    """
    request.check()
    settings.check()
    probe_addresses(settings)
    device = device_of(request.device)
    data_dir.prepare(settings.data_dir)
    source = dataset(request.dataset, settings.data_dir)
    say(f"data:    {request.dataset}")
    data = load_search_data(source).limited(request.train_images)
    identity = identify(request, data)
    with open_store(settings) as store, ExitStack() as stack:
        say(f"store:   {store.label}")
        say(f"MLflow:  {settings.mlflow_label}")
        with store.locked(CREATE_LOCK):
            tracker = open_tracker(tracking_uri(settings.mlflow_uri, store))
            stack.callback(tracker.disconnect)
            study, is_new = _create_or_resume(store, identity, request)
            job = _job(store, study, identity, data, device, tracker, settings.data_dir)
        session = Session(job, request, is_new)
        session.fill(request.trials)
        yield session


def probe_addresses(settings: Settings) -> None:
    """Raise StorageError or TrackingError within 5 s where a given address does not answer."""
    if settings.storage_url is not None:
        probe(postgres_url(settings.storage_url))
    uri = settings.mlflow_uri
    if uri is not None and uri.startswith("postgresql"):
        probe(postgres_url(uri))
    elif uri is not None:
        probe_tracking(uri)


def identify(request: Request, data: SearchData) -> StudyIdentity:
    """The identity of the requested study on `data`; raises InputError if they do not fit."""
    request.space.check_fits(len(data.train))
    data.shape.patches(request.switches.patch_size)
    return StudyIdentity(
        model=request.model,
        switches=asdict(request.switches),
        dataset=request.dataset,
        data_checksum=data.checksum,
        train_images=len(data.train),
        validation_images=len(data.validation),
        epochs=request.epochs,
        rungs=search_rungs(len(data.train), request.epochs),
        lr=request.space.lr,
        batch_size=request.space.batch_size,
        sampler=request.sampler,
        pruner=request.pruner,
        seed=request.seed,
    )


def find_study(store: Store, name: str) -> optuna.Study:
    """The study called `name`; raises UnknownStudyError naming the nearest."""
    names = optuna.get_all_study_names(store.storage)
    if name not in names:
        hint = nearest(name, names) if names else "; there are none yet"
        raise UnknownStudyError(f"no study '{name}'{hint}")
    return optuna.load_study(study_name=name, storage=store.storage)


def show_study(store: Store, name: str) -> Overview:
    """How the study called `name` stands; raises UnknownStudyError if it is not one of ours."""
    seen = overview(store, find_study(store, name))
    if seen is None:
        raise UnknownStudyError(f"the study '{name}' was not made by bnvit-study")
    return seen


def all_overviews(store: Store) -> list[Overview]:
    """Every study of ours in the store, by name."""
    studies = (
        find_study(store, name) for name in sorted(optuna.get_all_study_names(store.storage))
    )
    return [seen for study in studies if (seen := overview(store, study)) is not None]


def pages(store: Store) -> list[tuple[str, int, str | None]]:
    """Name, Optuna id and MLflow experiment id of every study, by name."""
    studies = sorted(store.storage.get_all_studies(), key=lambda study: study.study_name)
    return [
        (study.study_name, study._study_id, study.user_attrs.get("mlflow_experiment_id"))
        for study in studies
    ]


def _create_or_resume(
    store: Store, identity: StudyIdentity, request: Request
) -> tuple[optuna.Study, bool]:
    names = set(optuna.get_all_study_names(store.storage))
    name = request.study_name
    if request.fresh:
        name = _free_name(name, names)
    if name in names:
        study = optuna.load_study(study_name=name, storage=store.storage, pruner=pruner(identity))
        if not _is_blank(study):
            _refuse_difference(study, identity, request)
            return study, False
    else:
        study = optuna.create_study(
            study_name=name, storage=store.storage, direction="maximize", pruner=pruner(identity)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["val_accuracy"])  # on the dashboard's axes
    study.set_user_attr(UUID_KEY, str(uuid4()))
    study.set_user_attr(IDENTITY_KEY, identity.as_dict())
    return study, True


def _is_blank(study: optuna.Study) -> bool:
    """Whether whoever created `study` died before giving it an identity."""
    is_ours = study.direction == optuna.study.StudyDirection.MAXIMIZE
    return is_ours and IDENTITY_KEY not in study.user_attrs and not study.get_trials(deepcopy=False)


def _refuse_difference(study: optuna.Study, identity: StudyIdentity, request: Request) -> None:
    stored = identity_of(study)
    if stored is None:
        raise IdentityError(
            f"the study '{study.study_name}' was not made by bnvit-study; choose another --study"
        )
    if lines := stored.differences(identity):
        raise IdentityError(
            f"the study '{study.study_name}' exists and differs: {'; '.join(lines)}. "
            f"Ask for the same, or start another with: {request.command(fresh=True)}"
        )


def _free_name(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def _job(
    store: Store,
    study: optuna.Study,
    identity: StudyIdentity,
    data: SearchData,
    device: torch.device,
    tracker: NullTracker,
    folder: Path,
) -> Job:
    runs = tracker.open_study(
        study.study_name,
        str(study.user_attrs[UUID_KEY]),
        identity.as_dict(),
        folder / "artifacts",
    )
    if runs is not None:
        study.set_user_attr("mlflow_experiment_id", runs.experiment_id)
        study.set_user_attr("mlflow_parent_run_id", runs.parent_run_id)
    return Job(store, study, identity, data, device, tracker, runs, folder / "checkpoints")
