"""The studies that a worker serves, and what it needs to work on each."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
import torch
from sqlalchemy import text

from models.errors import BnvitError, InputError
from objectives.initial import read_initial
from objectives.teacher import load_teacher
from study import slots
from study.checkpoint_places import ArtifactPlace, FsspecPlace, Place, check_place, shown_place
from study.checkpoints import Checkpoints
from study.execution import execution_of
from study.fitness import check_mlflow, compare_versions
from study.identity import IDENTITY_KEY, UUID_KEY, identity_of
from study.job import Job
from study.samplers import pruner
from study.settings import LOCAL_CHECKPOINTS, Settings, is_server
from study.shelf import Shelf
from study.slots import STOP_KEY, TOTAL_KEY
from study.storage import Store
from study.studies import CHECKPOINTS_KEY, find_study, is_being_created, runs_of
from study.tracking import StudyRuns
from study.worker_storage import WorkerStorage

REFRESH_S = 5.0  # between looks at which studies are active
RETRY_S = 120.0  # before a study that could not be worked on here is tried again

log = logging.getLogger(__name__)

_ACTIVE = text(f"""
    SELECT s.study_id, s.study_name, (
        SELECT count(*) FROM trials t WHERE t.study_id = s.study_id AND t.state <> 'WAITING'
    ) AS begun
    FROM studies s
    JOIN study_user_attributes identity USING (study_id)
    JOIN study_user_attributes total USING (study_id)
    WHERE identity.key = :identity AND total.key = :total
    AND {slots.not_stopped("s.study_id")}
    AND (
        total.value_json::int > (
            SELECT count(*) FROM trials t
            WHERE t.study_id = s.study_id AND t.state IN ('COMPLETE', 'PRUNED')
        )
        OR EXISTS (SELECT FROM trials t WHERE t.study_id = s.study_id AND t.state = 'RUNNING')
    )
    ORDER BY s.study_id
""")


def active_studies(store: Store, names: Sequence[str] = ()) -> dict[int, str]:
    """Id and name of our studies that have trials left and are not stopped.

    The oldest first; of the studies in `names`, if any, that one first which has begun the fewest
    trials, so that studies that are to be compared grow alike. A trial that was begun is one to
    end, also where the total was lowered meanwhile.
    """
    keys = {"identity": IDENTITY_KEY, "total": TOTAL_KEY, "stop": STOP_KEY}
    with store.engine.connect() as connection:
        rows = connection.execute(_ACTIVE, keys).all()
    if names:
        rows = sorted((row for row in rows if row[1] in names), key=lambda row: row[2])
    return {row[0]: row[1] for row in rows}


@dataclass(frozen=True)
class _Refusal:
    """Why a study could not be worked on here, when it was last tried."""

    reason: str
    at_s: float  # by the monotonic clock


class Docket:
    """What there is to do: the named studies, or every active one."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        device: torch.device,
        names: Sequence[str] = (),
        processes: int = 1,
    ) -> None:
        """Raises UnknownStudyError, or what hinders work on a named study.

        `processes`: how many train each trial together.
        """
        self.store = store
        self.settings = settings
        self.device = device
        self.names = names
        self.processes = processes
        self._jobs: dict[int, Job] = {}
        self._refused: dict[int, _Refusal] = {}
        self._shelf = Shelf(settings.data_dir)
        self._active: dict[int, str] = {}
        self._looked_at_s = -REFRESH_S
        self._awaited: list[optuna.Study] = []
        for name in names:
            study = find_study(store, name)
            if is_being_created(study):
                log.info("the study '%s' is being created; waiting for that", name)
                self._awaited.append(study)
            else:
                self._jobs[study._study_id] = self._join(study)

    @property
    def is_done(self) -> bool:
        """Whether the named studies have all ended or been stopped; never true without names."""
        return bool(self.names) and not self._active and not self._awaited

    def jobs(self, at_once: bool = False) -> list[Job]:
        """Work on the active studies, in order; asked anew every REFRESH_S, or `at_once`.

        So that several named studies grow alike, their order is asked for anew each time.
        """
        at_once = at_once or len(self.names) > 1
        if at_once or time.monotonic() - self._looked_at_s > REFRESH_S:
            self._awaited = [study for study in self._awaited if is_being_created(study)]
            self._active = active_studies(self.store, self.names)
            self._looked_at_s = time.monotonic()
        jobs = [self._job(study_id, name) for study_id, name in self._active.items()]
        return [job for job in jobs if job is not None]

    def tidy(self) -> None:
        """Delete checkpoints that this node still has of studies that have ended."""
        for job in self._jobs.values():
            if _has_ended(job):
                job.checkpoints.sweep()

    def close(self) -> None:
        """End what works in the background for the jobs."""
        for job in self._jobs.values():
            job.checkpoints.close()

    def flush(self, timeout_s: float) -> None:
        """Wait until all checkpoints are where other nodes find them, or give up."""
        until_s = time.monotonic() + timeout_s
        for job in self._jobs.values():
            job.checkpoints.flush(max(until_s - time.monotonic(), 0.0))

    def _job(self, study_id: int, name: str) -> Job | None:
        """What is needed for a study; None where it cannot be worked on here, as was said."""
        if study_id in self._jobs:
            return self._jobs[study_id]
        before = self._refused.get(study_id)
        if before is not None and time.monotonic() - before.at_s < RETRY_S:
            return None
        try:
            self._jobs[study_id] = self._join(find_study(self.store, name))
        except BnvitError as error:
            if self.names:
                raise
            if before is None or before.reason != str(error):
                log.warning("%s; tried again every %.0f s", error, RETRY_S)
            self._refused[study_id] = _Refusal(str(error), time.monotonic())
        return self._jobs.get(study_id)

    def _join(self, study: optuna.Study) -> Job:
        identity = identity_of(study)
        if identity is None:
            raise InputError(f"the study '{study.study_name}' was not made by bnvit-study")
        if identity.batch_size[0] < self.processes:
            raise InputError(
                f"batches of the study '{study.study_name}' begin at {identity.batch_size[0]}, too "
                f"few images for {self.processes} processes that train together; start fewer"
            )
        runs = None if self.settings.is_tracking_off else runs_of(study)
        check_mlflow(study, runs, self.settings)
        if identity.initial is not None:
            read_initial(identity.initial)
        if identity.recipe.teacher is not None:
            load_teacher(identity.recipe.teacher, identity.teacher_checksum)
        data = self._shelf.data(study.study_name, identity)
        compare_versions(study)
        storage = WorkerStorage(self.store, study._study_id, identity.space.distributions())
        study = optuna.load_study(
            study_name=study.study_name, storage=storage, pruner=pruner(identity)
        )
        checkpoints = open_checkpoints(study, self.settings, runs)
        return Job(
            self.store,
            storage,
            study,
            identity,
            data,
            self.device,
            runs,
            checkpoints,
            self.settings.data_dir,
            execution_of(study),
        )


def _has_ended(job: Job) -> bool:
    try:
        return slots.remaining(job.store, job.study) == 0
    except KeyError:  # the study was deleted
        return True


def check_checkpoints(settings: Settings) -> None:
    """Raise InputError where checkpoints cannot be kept as asked."""
    url = settings.checkpoints
    if url is None or url == LOCAL_CHECKPOINTS:
        return
    if shown_place(url) != url:
        raise InputError(
            "the checkpoint URL holds a password, and all workers are told the URL; leave it out "
            "and give it to each node as its driver wants it (such as AWS_… in the environment)"
        )
    check_place(url)


def open_checkpoints(
    study: optuna.Study, settings: Settings, runs: StudyRuns | None
) -> Checkpoints:
    """Where the study's checkpoints are kept: on this disk, and where all nodes find them.

    That is the place given here, else the one that the study was started with, else the
    artifacts of its MLflow server if there is one. "local" keeps them on this disk alone.
    """
    uuid = str(study.user_attrs[UUID_KEY])
    url = settings.checkpoints or study.user_attrs.get(CHECKPOINTS_KEY)
    uri = settings.mlflow_uri
    place: Place | None = None
    if url is not None and url != LOCAL_CHECKPOINTS:
        place = FsspecPlace(url, uuid)
    elif url is None and runs is not None and uri is not None and is_server(uri):
        place = ArtifactPlace(uri, runs.parent_run_id)
    return Checkpoints(settings.data_dir / "checkpoints" / uuid, place)
