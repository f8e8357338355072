"""Open a study to work on it, look after its slots meanwhile, and tidy up at its end."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import optuna
import torch

from models.errors import InputError
from objectives.compiling import keep_in
from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset, validation_count
from objectives.execution import has_bf16_units
from objectives.hardware import has_mps
from study import data_dir, slots
from study.counts import Trained, trained_of
from study.creation import create_or_resume, identify
from study.crew import berths
from study.docket import check_checkpoints, open_checkpoints
from study.environment import device_of
from study.errors import UnknownStudyError
from study.execution import decided
from study.giving_up import give_up
from study.identity import UUID_KEY, StudyIdentity
from study.metrics_server import check_ports
from study.overview import Overview, overview
from study.recorder import record_study_end
from study.request import Request
from study.settings import Settings, postgres_url
from study.spool import Spool
from study.storage import CREATE_LOCK, Store, open_store, probe, tracking_uri
from study.studies import CHECKPOINTS_KEY, MLFLOW_KEY, set_stopped
from study.tracking import StudyRuns, open_tracker, probe_tracking
from study.workplace import worker_name

SWEEP_S = 10.0  # for the copies of checkpoints to be deleted


@dataclass(frozen=True)
class Session:
    """A study ready to be worked on, and whether it was there before."""

    store: Store
    study: optuna.Study
    identity: StudyIdentity
    request: Request
    settings: Settings
    device: torch.device
    runs: StudyRuns | None  # None: tracking is off
    is_new: bool
    trained: Trained  # of its model's parameters

    def overview(self) -> Overview:
        """How the study stands now."""
        with self._deletion_told():
            seen = overview(self.store, self.study)
        assert seen is not None  # it was created with an identity
        return seen

    def fill(self, trials: int | None = None) -> None:
        """Make slots towards the study's total, which `trials` sets."""
        slots.fill(self.store, self.study, self.identity.slot_values, trials)

    def tend(self, spool: Spool | None, take_over: bool = True) -> bool:
        """Replace failed trials, give up those that kill their workers; whether all have ended.

        `take_over` false leaves trials of silent workers alone, as in `slots.claim`.
        """
        store, study = self.store, self.study
        with self._deletion_told():
            while take_over and (claim := slots.claim_hopeless(store, study, worker_name())):
                give_up(store, study, self.runs, claim, spool)
            self.fill()
            return self.is_done

    @property
    def uuid(self) -> str:
        """The study's identity across stores."""
        return str(self.study.user_attrs[UUID_KEY])

    @property
    def is_done(self) -> bool:
        """Whether all trials have ended."""
        return slots.remaining(self.store, self.study) == 0

    def close(self, spool: Spool | None) -> None:
        """Tidy up after the study's trials, and say in MLflow whether all have ended."""
        with self._deletion_told():
            is_done = self.is_done
            if is_done:
                checkpoints = open_checkpoints(self.study, self.settings, self.runs)
                checkpoints.sweep()
                checkpoints.flush(SWEEP_S)
                checkpoints.close()
            if spool is not None and self.runs is not None:
                record_study_end(spool, self.study, self.runs, is_done)

    @contextmanager
    def _deletion_told(self) -> Iterator[None]:
        """Raise UnknownStudyError where the study was deleted, which Optuna finds as a KeyError."""
        try:
            yield
        except KeyError as error:
            raise UnknownStudyError(
                f"the study '{self.request.study_name}' was deleted meanwhile"
            ) from error


@contextmanager
def open_session(
    request: Request, settings: Settings, say: Callable[[str], None]
) -> Iterator[Session]:
    """As `open_sessions`, of one study."""
    with open_sessions([request], settings, say) as (session,):
        yield session


@contextmanager
def open_sessions(
    requests: Sequence[Request], settings: Settings, say: Callable[[str], None]
) -> Iterator[list[Session]]:
    """Check everything, then open the store and create or resume the studies.

    Nothing is created before all input has been found good. `say` is told what takes time. The
    requests are of one data set and one device.
    """
    for request in requests:
        request.check()
    settings.check()
    _check_keeping(requests, settings)
    probe_addresses(settings)
    check_checkpoints(settings)
    device = device_of(requests[0].device)
    if requests[0].engine == "local":
        check_ports(settings, _most_workers(requests[0], device))
    data_dir.prepare(settings.data_dir)
    os.environ.update(keep_in(settings.data_dir))  # before torch notes a place of its own
    say(f"data:    {requests[0].dataset}")
    identified = _identified(requests, settings, device)
    with open_store(settings) as store:
        say(f"store:   {store.label}")
        say(f"MLflow:  {settings.mlflow_label}")
        for line in _notes(requests[0], device) if requests[0].engine == "local" else ():
            say(f"note:    {line}")
        sessions = [_opened(store, settings, device, *one) for one in identified]
        for session in sessions:
            session.fill(session.request.trials)
        yield sessions


def _check_keeping(requests: Sequence[Request], settings: Settings) -> None:
    if settings.is_tracking_off and any(one.keep_weights == "all" for one in requests):
        raise InputError(
            "--keep-weights all keeps them in MLflow, and tracking is off; leave out one of the two"
        )


_Decide = Callable[[], str]


def _identified(
    requests: Sequence[Request], settings: Settings, device: torch.device
) -> list[tuple[Request, StudyIdentity, Trained, _Decide]]:
    """What each study is to be, on data that are read once; workers read their own."""
    first = requests[0]
    source = dataset(first.dataset, settings.data_dir, first.data_options)
    whole = load_search_data(source, first.is_joined)
    found: list[tuple[Request, StudyIdentity, Trained, _Decide]] = []
    for request in requests:
        data = _limited(whole, request)
        identity = identify(request, data)
        shares = _shares(request, device)
        decide = partial(decided, identity, data.shape, request.compile, request.trials, shares)
        found.append((request, identity, trained_of(identity, data.shape), decide))
    return found


def _limited(data: SearchData, request: Request) -> SearchData:
    """The images asked for; raises InputError where there are not so many.

    A number of training images is one of the train split, to which validation images are added.
    """
    if request.train_images is None or not request.is_joined:
        return data.limited(request.train_images)
    return data.limited(request.train_images + validation_count(len(data.train)))


def _opened(
    store: Store,
    settings: Settings,
    device: torch.device,
    request: Request,
    identity: StudyIdentity,
    trained: Trained,
    decide: _Decide,
) -> Session:
    """The study, created or found, with its place in MLflow."""
    with store.locked(CREATE_LOCK):
        study, is_new = create_or_resume(store, identity, request, decide)
        runs = _open_runs(store, study, identity, settings)
        set_stopped(study, False)
    return Session(store, study, identity, request, settings, device, runs, is_new, trained)


def _shares(request: Request, device: torch.device) -> int:
    """Among how many workers the trials are divided, as far as that is known: at most."""
    if request.workers == "auto" and device.type == "cpu":
        return torch.get_num_threads()
    return request.workers if isinstance(request.workers, int) else 1


def _most_workers(request: Request, device: torch.device) -> int:
    """How many local workers there will be, at most."""
    if request.workers == "auto":
        return max(_shares(request, device), len(berths(device, None, request.workers_per_gpu)))
    return len(berths(device, request.workers, request.workers_per_gpu))


def _notes(request: Request, device: torch.device) -> Iterator[str]:
    """What of the request does little or nothing on this device."""
    if request.precision == "bf16" and not has_bf16_units(device) and request.workers != 0:
        yield f"this {device.type} has no units for bf16; float32 may be faster"
    if request.compile == "on" and device.type not in ("cpu", "cuda"):
        yield f"nothing is compiled on {device.type}"
    if _share_a_gpu(request, device) and not has_mps():
        yield "workers on one GPU take turns at it without NVIDIA's MPS (docs/workers.md)"
    if request.workers == "auto" and device.type != "cpu":
        yield f"--workers auto divides CPUs; on {device.type} it is the usual number"


def _share_a_gpu(request: Request, device: torch.device) -> bool:
    workers = None if request.workers == "auto" else request.workers
    places = [place.gpu for place in berths(device, workers, request.workers_per_gpu)]
    return device.type == "cuda" and len(places) > len(set(places))


def probe_addresses(settings: Settings) -> None:
    """Raise StorageError or TrackingError within 5 s where a given address does not answer."""
    if settings.storage_url is not None:
        probe(postgres_url(settings.storage_url))
    uri = settings.mlflow_uri
    if uri is not None and uri.startswith("postgresql"):
        probe(postgres_url(uri))
    elif uri is not None:
        probe_tracking(uri)


def _open_runs(
    store: Store, study: optuna.Study, identity: StudyIdentity, settings: Settings
) -> StudyRuns | None:
    """Make the study's place in MLflow, and tell all nodes where it is."""
    tracker = open_tracker(tracking_uri(settings.mlflow_uri, store))
    try:
        runs = tracker.open_study(
            study.study_name,
            str(study.user_attrs[UUID_KEY]),
            identity.as_dict(),
            settings.data_dir / "artifacts",
        )
    finally:
        tracker.disconnect()
    if runs is not None:
        study.set_user_attr("mlflow_experiment_id", runs.experiment_id)
        study.set_user_attr("mlflow_parent_run_id", runs.parent_run_id)
    study.set_user_attr(MLFLOW_KEY, settings.mlflow_address)
    if settings.checkpoints is not None:
        study.set_user_attr(CHECKPOINTS_KEY, settings.checkpoints)
    return runs
