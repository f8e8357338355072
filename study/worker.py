"""A worker: claims slots and trains one trial at a time, until none is left or it is stopped."""

import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from objectives.outcome import Outcome
from study import slots
from study.attempt import Attempt, Hands
from study.docket import Docket
from study.errors import WorkerError
from study.following import keep_waiting
from study.giving_up import give_up
from study.job import Job
from study.leases import Claim
from study.logs import context

POLL_S = 1.0  # between looks at a store without an open slot; more or less, at random
FAILURES_IN_A_ROW = 3  # after so many failed trials a worker gives up

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """When a worker leaves though there may be more to do."""

    trials: int | None = None
    idle_s: float | None = None


def work(docket: Docket, hands: Hands, limits: Limits) -> int:
    """Train trials of the docket's studies until they have ended or a stop is asked for.

    Returns the number of trials that ended here. Raises WorkerError when trials fail one after
    another, StoreAwayError when the store stays away.
    """
    ended = failures = 0
    is_idle = False
    idle_since_s = time.monotonic()
    while not hands.stop.requested and (limits.trials is None or ended < limits.trials):
        found = _claim(docket, hands)
        if found is None:
            hands.patience(lambda: docket.jobs(at_once=True))
            if docket.is_done:
                log.info("nothing is left to do in %s", ", ".join(docket.names))
                return ended
            if _has_idled(idle_since_s, limits.idle_s):
                return ended
            if not is_idle:
                log.info("no trial to train; waiting for one")
            is_idle = True
            hands.stop.wait(POLL_S * random.uniform(0.5, 1.5))
            keep_waiting(hands.team)
            continue
        is_idle = False
        job, claim = found
        outcome = _attempt(job, claim, hands)
        idle_since_s = time.monotonic()
        ended += outcome not in (None, Outcome.FAILED)
        if not claim.is_hopeless:  # that one failed other workers
            failures = failures + 1 if outcome is Outcome.FAILED else 0
        if failures == FAILURES_IN_A_ROW:
            raise WorkerError(
                f"{failures} trials failed one after another; the last error is in the log above. "
                "Mend it and run the same command again"
            )
    return ended


def _attempt(job: Job, claim: Claim, hands: Hands) -> Outcome | None:
    with context(study=job.study.study_name, trial=claim.number, attempt=claim.attempt):
        if not claim.is_hopeless:
            return _train(job, claim, hands)
        hands.patience(lambda: give_up(job.store, job.study, job.runs, claim, hands.spool))
        hands.tally.count(job.study.study_name, Outcome.FAILED)
        job.checkpoints.discard(claim.number)
        return Outcome.FAILED


def _train(job: Job, claim: Claim, hands: Hands) -> Outcome | None:
    trial = f"trial {claim.number} of '{job.study.study_name}'"
    log.info("%s begins%s", trial, f", attempt {claim.attempt}" if claim.attempt > 1 else "")
    attempt = Attempt(job, claim, hands)
    with hands.tally.holding(job.study.study_name, attempt.ledger) as held:
        outcome = held.outcome = attempt.run()
    if outcome is not None:
        log.info("%s: %s", trial, outcome.value)
    elif hands.stop.requested:
        log.info("%s is put back with what it has learnt", trial)
    return outcome


def _claim(docket: Docket, hands: Hands) -> tuple[Job, Claim] | None:
    """The next trial of the first study that has one; makes slots where all are taken."""
    for job in hands.patience(docket.jobs):
        for _ in range(2):
            claim = hands.patience(lambda job=job: _claim_of(job, hands))  # type: ignore[misc]
            if claim is not None:
                _refill_ahead(job, claim)
                return job, claim
            if not hands.patience(lambda job=job: _refill(job)):  # type: ignore[misc]
                break
    return None


def _claim_of(job: Job, hands: Hands) -> Claim | None:
    beat = hands.beat
    return slots.claim(job.store, job.study, beat.worker.name, take_over=beat.is_settled)


def _refill(job: Job) -> int:
    """Make the slots that are missing, as for trials that failed; returns how many."""
    try:
        return slots.fill(job.store, job.study, job.identity.slot_values)
    except KeyError:  # the study was deleted; soon the docket knows
        return 0


def _refill_ahead(job: Job, claim: Claim) -> None:
    """Now and then make slots before all are taken; if the store is away, another will."""
    if claim.number % slots.REFILL_EVERY == 0:
        with suppress(SQLAlchemyError, StorageInternalError):
            _refill(job)


def _has_idled(since_s: float, limit_s: float | None) -> bool:
    return limit_s is not None and time.monotonic() - since_s >= limit_s
