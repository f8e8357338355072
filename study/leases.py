"""Leases: a worker's hold on a trial, for as long as the server hears of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, func, select, text

from study.schema import leases, workers
from study.storage import Store

MOST_CRASHES = 3  # workers in a row that a trial may kill before it is given up
NOBODY = ""  # as a lease's worker: the trial was put back in order

# Parts of the statements that claim and write. A claim, and each step of a trial that is held, is
# one statement: it has happened wholly or not at all, and waits for the server once.
_EXPIRY = "now() + :lease_s * interval '1 second'"

# Of a lease l. A server that has only just started has heard of nobody yet: half a lease is left.
IS_EXPIRED = """(
    l.expires_at <= now()
    AND now() - pg_postmaster_start_time() > :lease_s / 2 * interval '1 second'
)"""

# Takes the lease of the trial in `chosen`, which the statement has locked.
TAKE = f"""
    INSERT INTO bnvit.lease AS l (trial_id, attempt, crashes, worker, expires_at, images_seen)
    SELECT trial_id, 1, 0, :worker, {_EXPIRY}, 0 FROM chosen
    ON CONFLICT (trial_id) DO UPDATE SET
        attempt = l.attempt + 1,
        crashes = l.crashes + CASE WHEN l.worker IN ('{NOBODY}', :worker) THEN 0 ELSE 1 END,
        worker = excluded.worker,
        expires_at = excluded.expires_at
    RETURNING l.trial_id, l.attempt, l.crashes, l.images_saved
"""

# A checkpoint further on than any before shows that the trial does not always kill.
EXTEND = f"""
    UPDATE bnvit.lease SET
        expires_at = {_EXPIRY},
        images_seen = :images_seen,
        crashes = CASE WHEN images_saved < :images_saved THEN 0 ELSE crashes END,
        images_saved = greatest(images_saved, :images_saved)
    WHERE trial_id = :trial AND attempt = :attempt
"""
_EXTEND = text(EXTEND)


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
    images_saved: int = 0  # in its furthest checkpoint

    @property
    def is_hopeless(self) -> bool:
        """Whether the trial is to be given up rather than tried again."""
        return self.crashes >= MOST_CRASHES


def terms(store: Store, worker: str) -> dict[str, Any]:
    """The parameters of IS_EXPIRED and TAKE."""
    return {"worker": worker, "lease_s": store.lease_s}


def extend(store: Store, claim: Claim, images_seen: int, images_saved: int) -> bool:
    """Tell the server that the worker lives, and how far it is; False if the lease is lost."""
    asked = extension(store, claim, images_seen, images_saved)
    with store.at_once.connect() as connection:
        return connection.execute(_EXTEND, asked).rowcount == 1


def extension(store: Store, claim: Claim, images_seen: int, images_saved: int) -> dict[str, Any]:
    """The parameters of EXTEND."""
    return {
        "trial": claim.trial_id,
        "attempt": claim.attempt,
        "lease_s": store.lease_s,
        "images_seen": images_seen,
        "images_saved": images_saved,
    }


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
def held(store: Store, claim: Claim) -> Iterator[Connection]:
    """A transaction during which nobody can take the trial over; LeaseLostError if one has.

    Should this process freeze, the server ends the transaction.
    """
    with store.engine.begin() as connection:
        fence = select(leases.c.attempt).where(*ours(claim)).with_for_update()
        if connection.execute(fence).first() is None:
            raise LeaseLostError
        yield connection


def ours(claim: Claim) -> tuple[Any, ...]:
    """Condition on the lease table: the claim is the latest on its trial."""
    return leases.c.trial_id == claim.trial_id, leases.c.attempt == claim.attempt
