"""Leases: a worker's hold on a trial, for as long as the server hears of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import Connection, and_, case, func, literal, select, text
from sqlalchemy.dialects.postgresql import insert

from study.schema import leases, trials, workers
from study.storage import Store

MOST_CRASHES = 3  # workers in a row that a trial may kill before it is given up
NOBODY = ""  # as a lease's worker: the trial was put back in order


class LeaseLostError(Exception):
    """Another worker has taken the trial over; this one's results of it are dropped."""


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a trial."""

    trial_id: int
    number: int  # of the trial in its study
    attempt: int
    worker: str
    crashes: int = 0  # workers that it killed in a row, without progress between

    @property
    def is_hopeless(self) -> bool:
        """Whether the trial is to be given up rather than tried again."""
        return self.crashes >= MOST_CRASHES


def open_to(
    store: Store, study: optuna.Study, worker: str, take_over: bool
) -> sqlalchemy.Select[Any]:
    """The first running trial that `worker`, who holds none, may take, locked.

    That is one of its own, which it claimed without hearing the answer or could not put back;
    with `take_over` also one whose worker has been silent for too long.
    """
    is_own = leases.c.worker == worker
    return _running(study).where(is_own | _is_expired(store) if take_over else is_own)


def hopeless(store: Store, study: optuna.Study) -> sqlalchemy.Select[Any]:
    """The first running trial that has now killed too many workers, locked."""
    return _running(study).where(_is_expired(store), leases.c.crashes >= MOST_CRASHES - 1)


def _running(study: optuna.Study) -> sqlalchemy.Select[Any]:
    return (
        select(trials.c.trial_id)
        .join(leases, leases.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == study._study_id, trials.c.state == TrialState.RUNNING)
        .order_by(trials.c.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _is_expired(store: Store) -> sqlalchemy.ColumnElement[bool]:
    """A server that has only just started has heard of nobody yet: it is left half a lease."""
    settled = func.now() - func.pg_postmaster_start_time() > _seconds(store.lease_s / 2)
    return and_(leases.c.expires_at <= func.now(), settled)


def take(connection: Connection, store: Store, trial_id: int, worker: str) -> tuple[int, int]:
    """Take the lease of a trial that `connection` has locked; returns attempt and crashes."""
    fresh = insert(leases).values(
        trial_id=trial_id,
        attempt=1,
        crashes=0,
        worker=worker,
        expires_at=_expiry(store),
        images_seen=0,
    )
    taken = fresh.on_conflict_do_update(
        index_elements=[leases.c.trial_id],
        set_={
            "attempt": leases.c.attempt + 1,
            "crashes": leases.c.crashes + case((leases.c.worker.in_((NOBODY, worker)), 0), else_=1),
            "worker": worker,
            "expires_at": _expiry(store),
        },
    ).returning(leases.c.attempt, leases.c.crashes)
    attempt, crashes = connection.execute(taken).one()
    return int(attempt), int(crashes)


def extend(store: Store, claim: Claim, images_seen: int, images_saved: int) -> bool:
    """Tell the server that the worker lives, and how far it is; False if the lease is lost."""
    with store.engine.begin() as connection:
        extension = _extension(store, claim, images_seen, images_saved)
        return connection.execute(extension).rowcount == 1


def give_up(claim: Claim) -> sqlalchemy.Update:
    """The statement that ends a lease in order."""
    return leases.update().where(*ours(claim)).values(expires_at=func.now(), worker=NOBODY)


def abandon(store: Store, worker: str) -> None:
    """End the leases of a worker that is known to have died, as if they had run out."""
    with store.engine.begin() as connection:
        connection.execute(workers.delete().where(workers.c.name == worker))
        connection.execute(
            leases.update()
            .where(leases.c.worker == worker, leases.c.expires_at > func.now())
            .values(expires_at=func.now())
        )


@contextmanager
def held(store: Store, claim: Claim, images: tuple[int, int] | None = None) -> Iterator[Connection]:
    """A transaction during which nobody can take the trial over; LeaseLostError if one has.

    With `images`, seen and saved, it extends the lease. Should this process freeze, the server
    ends the transaction.
    """
    fence: sqlalchemy.Executable = select(leases.c.attempt).where(*ours(claim)).with_for_update()
    if images is not None:
        fence = _extension(store, claim, *images).returning(leases.c.attempt)
    with store.engine.begin() as connection:
        if connection.execute(fence).first() is None:
            raise LeaseLostError
        yield connection


def ours(claim: Claim) -> tuple[Any, ...]:
    """Condition on the lease table: the claim is the latest on its trial."""
    return leases.c.trial_id == claim.trial_id, leases.c.attempt == claim.attempt


def _extension(
    store: Store, claim: Claim, images_seen: int, images_saved: int
) -> sqlalchemy.Update:
    """A checkpoint further on than any before shows that the trial does not always kill."""
    has_progressed = leases.c.images_saved < images_saved
    return (
        leases.update()
        .where(*ours(claim))
        .values(
            expires_at=_expiry(store),
            images_seen=images_seen,
            crashes=case((has_progressed, 0), else_=leases.c.crashes),
            images_saved=func.greatest(leases.c.images_saved, images_saved),
        )
    )


def _expiry(store: Store) -> Any:
    return func.now() + _seconds(store.lease_s)


def _seconds(seconds: float) -> Any:
    return literal(seconds) * text("interval '1 second'")
