"""What goes on in a store now: its studies, the trials that run, its workers."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import optuna
from sqlalchemy import text

from study.errors import VersionError
from study.overview import Overview, TrialRow, overview
from study.pace import recent_pace
from study.storage import Store
from study.studies import is_stopped, show_study
from study.worker_status import WorkerStatus, read_workers

log = logging.getLogger(__name__)

_HELD = text("""
    SELECT t.study_id, t.number, l.expires_at <= now(),
           extract(epoch FROM now() - coalesce(
               w.seen_at, l.expires_at - :lease_s * interval '1 second'
           ))::float8
    FROM trials t
    JOIN bnvit.lease l USING (trial_id)
    LEFT JOIN bnvit.worker w ON w.name = l.worker
    WHERE t.state = 'RUNNING'
""")

_Look = tuple[Overview, bool]  # and whether the study is stopped
_Held = Mapping[tuple[int, int], tuple[bool, float]]  # by study and number: is it lost, silence


@dataclass(frozen=True)
class RunningTrial:
    """A trial in a worker's hands, or lost by one that died."""

    number: int
    worker: str | None
    attempt: int
    images_seen: int
    rung: int | None  # the last reported, in images
    val_accuracy: float | None  # at that rung
    silent_s: float | None  # since its worker's last sign of life
    is_lost: bool  # the lease has run out: it waits for another worker


@dataclass(frozen=True)
class StudyStatus:
    """How a study stands and how fast it goes."""

    seen: Overview
    is_stopped: bool
    running: tuple[RunningTrial, ...]
    trials_per_hour: float | None  # None: nothing ran of late, or nothing is left to do
    left_s: float | None  # None: nobody works on it, or nothing can be said yet

    @property
    def has_ended(self) -> bool:
        """Whether all its trials have."""
        return len(self.seen.ended) == len(self.seen.counted)

    @property
    def is_worked_on(self) -> bool:
        """Whether a worker that lives has a trial of it."""
        return any(not trial.is_lost for trial in self.running)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; of the trials only the best and those that run."""
        seen, best = self.seen, self.seen.best
        return {
            "study": seen.study,
            "model": seen.identity.model,
            "dataset": seen.identity.dataset,
            "ended": len(seen.ended),
            "total": len(seen.counted),
            "outcomes": seen.outcomes,
            "is_stopped": self.is_stopped,
            "trials_per_hour": self.trials_per_hour,
            "left_s": self.left_s,
            "best": asdict(best) if best else None,
            "running": [asdict(trial) for trial in self.running],
        }


@dataclass(frozen=True)
class Status:
    """What goes on in a store."""

    store: str  # its label
    at: datetime  # by the store's clock
    asked: str | None  # the one study that was asked for; None: all
    studies: tuple[StudyStatus, ...]
    workers: tuple[WorkerStatus, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "store": self.store,
            "at": self.at,
            "studies": [study.as_dict() for study in self.studies],
            "workers": [worker.as_dict() for worker in self.workers],
        }


class StatusReader:
    """Reads the status again and again; a trial that has ended is read once."""

    def __init__(self, store: Store, study: str | None) -> None:
        """`study`: the one to look at; None: all of ours."""
        self.store = store
        self.study = study
        self._known: dict[int, optuna.Study] = {}  # with what Optuna has read of each
        self._unreadable: set[str] = set()

    def read(self) -> Status:
        """How things stand now; raises UnknownStudyError where the study is not, or not ours."""
        found = self._look()
        with self.store.engine.connect() as connection:
            now: datetime = connection.execute(text("SELECT now()")).scalar_one()
            rows = connection.execute(_HELD, {"lease_s": self.store.lease_s})
            held = {(row[0], row[1]): (row[2], row[3]) for row in rows}
        return Status(
            self.store.label,
            now.astimezone(),
            self.study,
            tuple(_study_status(*look, held, now) for look in found),
            tuple(read_workers(self.store)),
        )

    def _look(self) -> list[_Look]:
        if self.study is None:
            names = sorted(optuna.get_all_study_names(self.store.storage))
            return [look for name in names if (look := self._try_to_look_at(name)) is not None]
        look = self._look_at(self.study)
        return [look or (show_study(self.store, self.study), False)]  # which says what is wrong

    def _try_to_look_at(self, name: str) -> _Look | None:
        """As `_look_at`; what another version has written is named once, and left out."""
        try:
            return self._look_at(name)
        except VersionError as error:
            if name not in self._unreadable:
                log.warning("%s", error)
                self._unreadable.add(name)
            return None

    def _look_at(self, name: str) -> _Look | None:
        """A study and whether it is stopped; None if it is not one of ours, or not there."""
        try:
            study_id = self.store.storage.get_study_id_from_name(name)
            if study_id not in self._known:
                storage = self.store.storage
                self._known[study_id] = optuna.load_study(study_name=name, storage=storage)
            study = self._known[study_id]
            seen = overview(self.store, study)
            return None if seen is None else (seen, is_stopped(study))
        except KeyError:  # deleted, perhaps this moment
            return None


def read_status(store: Store, study: str | None) -> Status:
    """How `study`, or with None each study of ours, stands now, and what the workers do.

    Raises UnknownStudyError where the study is not there, or not one of ours.
    """
    return StatusReader(store, study).read()


def _study_status(seen: Overview, has_stopped: bool, held: _Held, now: datetime) -> StudyStatus:
    study_id = seen.source._study_id
    running = tuple(
        _running(row, *held.get((study_id, row.number), (False, None)))
        for row in seen.trials
        if row.outcome == "running"
    )
    plain_now = now.astimezone().replace(tzinfo=None)  # as Optuna's times are
    pace = recent_pace(seen, plain_now) if len(seen.ended) < len(seen.counted) else None
    is_worked_on = any(not trial.is_lost for trial in running)
    return StudyStatus(
        seen,
        has_stopped,
        running,
        pace.trials_per_hour if pace else None,
        pace.left_s(seen) if pace and is_worked_on else None,
    )


def _running(row: TrialRow, is_lost: bool, silent_s: float | None) -> RunningTrial:
    return RunningTrial(
        number=row.number,
        worker=row.worker,
        attempt=row.attempt,
        images_seen=row.images_seen,
        rung=row.rungs[-1] if row.rungs else None,
        val_accuracy=row.val_accuracy,
        silent_s=silent_s,
        is_lost=is_lost,
    )
