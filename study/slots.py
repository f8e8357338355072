"""Slots, claims and leases: the only coordination logic that is ours.

A slot is an Optuna trial that waits. A worker claims it by taking its lease, a row with an
attempt number and an expiry by the server's clock, and then flips the trial to RUNNING. Winning
the lease is the claim: one statement, atomic in Postgres, so a trial whose worker died is taken
over by whoever wins its expired lease, and nobody has to put it back first.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import BigInteger, Column, DateTime, Integer, Text, column, func, select, table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert

from study.storage import Store, metadata

LEASE_S = 30  # a worker silent for so long has lost its trial
BEAT_S = 5  # between two extensions of a lease
TOTAL_KEY = "bnvit:trials"  # attribute of a study: how many trials it is to have
NOBODY = ""  # as a lease's worker: the trial was put back in order

log = logging.getLogger(__name__)

leases = sqlalchemy.Table(
    "lease",
    metadata,
    Column("trial_id", BigInteger, primary_key=True),
    Column("attempt", Integer, nullable=False),  # counts the claims of this trial
    Column("crashes", Integer, nullable=False, default=0),  # claims that were never put back
    Column("worker", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),  # by the server's clock
    Column("images_seen", BigInteger, nullable=False, default=0),  # progress, for the live table
)

# Optuna's table, as far as slots need it.
_trials = table(
    "trials",
    column("trial_id", Integer),
    column("study_id", Integer),
    column("number", Integer),
    column("state", sqlalchemy.Enum(TrialState)),
)


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a trial."""

    trial_id: int
    attempt: int
    worker: str


def fill(
    store: Store, study: optuna.Study, starts: list[dict[str, Any]], trials: int | None = None
) -> None:
    """Make waiting + running + finished slots equal to the study's total; failed do not count.

    `trials` sets that total; without it the one set last holds. The first slots carry the values
    in `starts`; the others are left to the sampler. Surplus slots that nobody has claimed are
    withdrawn (they end as failed trials, without a run).
    """
    with store.locked(_fill_lock(study)):
        if trials is not None:
            study.set_user_attr(TOTAL_KEY, trials)
        trials = int(study.user_attrs[TOTAL_KEY])
        existing = study.get_trials(deepcopy=False)
        counted = [trial for trial in existing if trial.state != TrialState.FAIL]
        for number in range(len(existing), len(existing) + trials - len(counted)):
            study.enqueue_trial(starts[number] if number < len(starts) else {})
        surplus = len(counted) - trials
        waiting = [trial for trial in counted if trial.state == TrialState.WAITING]
        for trial in reversed(waiting[-surplus:] if surplus > 0 else []):
            _withdraw(store, trial._trial_id)


def claim(store: Store, study: optuna.Study, worker: str) -> Claim | None:
    """Claim the first open slot: waiting, or running under an expired lease. None: none is open."""
    while True:
        with store.engine.begin() as connection:
            trial_id = connection.execute(_open_slots(study)).scalar()
            if trial_id is None:
                return None
            attempt = connection.execute(_take_lease(trial_id, worker)).scalar()
        if attempt is None:
            continue  # another worker was faster
        try:
            # False if the trial runs already: its last worker died and its lease is ours now.
            store.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            continue  # its last worker was not dead and has just finished it
        return Claim(trial_id, attempt, worker)


def release(store: Store, claim: Claim) -> None:
    """Put the trial back as a waiting slot, if it is still ours.

    Parameters and reported rungs stay. One transaction: nobody sees it half done.
    """
    still_ours = select(leases.c.attempt).where(*_ours(claim)).exists()
    put_back = (
        _trials.update()
        .where(_trials.c.trial_id == claim.trial_id, _trials.c.state == TrialState.RUNNING)
        .where(still_ours)
        .values(state=TrialState.WAITING)
    )
    expire = leases.update().where(*_ours(claim)).values(expires_at=func.now(), worker=NOBODY)
    with store.engine.begin() as connection:
        connection.execute(put_back)
        connection.execute(expire)


def holds(store: Store, claim: Claim) -> bool:
    """Whether the trial is still ours: nobody has taken it over since."""
    with store.engine.connect() as connection:
        return connection.execute(select(leases.c.attempt).where(*_ours(claim))).first() is not None


@dataclass
class Beat:
    """Extends a lease in the background until it is stopped."""

    store: Store
    claim: Claim
    images_seen: Callable[[], int]  # progress, told with each beat
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Beat":
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                with self.store.engine.begin() as connection:
                    connection.execute(_extend(self.claim, self.images_seen()))
            except sqlalchemy.exc.SQLAlchemyError as error:
                log.warning("lease of trial %s not extended: %s", self.claim.trial_id, error)


def _open_slots(study: optuna.Study) -> sqlalchemy.Select[Any]:
    return (
        select(_trials.c.trial_id)
        .outerjoin(leases, leases.c.trial_id == _trials.c.trial_id)
        .where(
            _trials.c.study_id == study._study_id,
            _trials.c.state.in_((TrialState.WAITING, TrialState.RUNNING)),
            leases.c.trial_id.is_(None) | (leases.c.expires_at <= func.now()),
        )
        .order_by(_trials.c.number)
        .limit(1)
        .with_for_update(of=_trials, skip_locked=True)
    )


def _take_lease(trial_id: int, worker: str) -> ReturningInsert[Any]:
    fresh = insert(leases).values(
        trial_id=trial_id, attempt=1, crashes=0, worker=worker, expires_at=_expiry(), images_seen=0
    )
    crashed = sqlalchemy.case((leases.c.worker == NOBODY, 0), else_=1)
    return fresh.on_conflict_do_update(
        index_elements=[leases.c.trial_id],
        set_={
            "attempt": leases.c.attempt + 1,
            "crashes": leases.c.crashes + crashed,
            "worker": worker,
            "expires_at": _expiry(),
        },
        where=leases.c.expires_at <= func.now(),
    ).returning(leases.c.attempt)


def _extend(claim: Claim, images_seen: int) -> sqlalchemy.Update:
    values = {"expires_at": _expiry(), "images_seen": images_seen}
    return leases.update().where(*_ours(claim)).values(**values)


def _ours(claim: Claim) -> tuple[Any, ...]:
    return leases.c.trial_id == claim.trial_id, leases.c.attempt == claim.attempt


def _expiry() -> Any:
    return func.now() + sqlalchemy.text(f"interval '{LEASE_S} seconds'")


def _withdraw(store: Store, trial_id: int) -> None:
    with store.engine.begin() as connection:
        taken = connection.execute(_take_lease(trial_id, "withdrawn")).scalar()
    if taken is not None:
        store.storage.set_trial_user_attr(trial_id, "outcome", "withdrawn")
        store.storage.set_trial_state_values(trial_id, TrialState.FAIL)


def _fill_lock(study: optuna.Study) -> int:
    return 7_231_100_000 + study._study_id
