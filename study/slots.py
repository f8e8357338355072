"""Slots and claims: which trials there are to be, and who takes which.

A slot is an Optuna trial that waits. Filling and claiming are one SQL transaction each, so that a
process that dies, or a connection that drops, in their middle has done nothing. They write
Optuna's tables directly: its own calls cannot be made conditional on ours.
"""

import json
from collections.abc import Callable
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import Connection, func, select, text

from objectives.search_space import START_POINTS
from study import leases
from study.leases import Claim
from study.schema import leases as lease
from study.schema import system_attributes, trials, user_attributes
from study.storage import Store

TOTAL_KEY = "bnvit:trials"  # attribute of a study: how many trials it is to have
MOST_WAITING = 100  # slots made ahead: each look at a study reads all its open trials

Starts = Callable[[], list[dict[str, Any]]]

_UTC_NOW = func.timezone("UTC", func.now())  # as Optuna stores times
_FILL_LOCK = 7_231_100_000  # plus the study's id in Optuna


def fill(store: Store, study: optuna.Study, starts: Starts, total: int | None = None) -> int:
    """Make slots towards waiting + running + finished = the study's total; failed do not count.

    At most MOST_WAITING wait at a time; the rest is made when those are claimed. `total` sets
    the total; without it the one set last holds. The first slots carry the values that `starts`
    gives; the others are left to the sampler. Surplus slots that nobody has claimed are withdrawn
    (they end as failed trials, without a run). Returns the number of slots made.
    """
    if total is not None:
        study.set_user_attr(TOTAL_KEY, total)
    with store.engine.begin() as connection:
        lock_filling(connection, study)
        wanted = int(study.user_attrs[TOTAL_KEY])
        made, counted, waiting = _count(connection, study)
        if counted > wanted:
            _withdraw(connection, study, min(counted - wanted, waiting))
            return 0
        missing = min(wanted - counted, MOST_WAITING - waiting)
        _make(connection, study, range(made, made + max(missing, 0)), starts)
        return max(missing, 0)


def lock_filling(connection: Connection, study: optuna.Study) -> None:
    """Until the transaction ends nobody else makes slots of the study."""
    lock = {"key": _FILL_LOCK + study._study_id}
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), lock)


def claim(store: Store, study: optuna.Study, worker: str, take_over: bool = True) -> Claim | None:
    """Claim an open slot: a trial whose worker has died, else the first that waits. None: none.

    `take_over` false leaves the trials of silent workers alone, as one should who has just been
    cut off itself: they may have been as well.
    """
    with store.engine.begin() as connection:
        trial_id = connection.scalar(leases.open_to(store, study, worker, take_over))
        if trial_id is None:
            trial_id = connection.scalar(_waiting(study))
        return None if trial_id is None else _take(connection, store, trial_id, worker)


def claim_hopeless(store: Store, study: optuna.Study, worker: str) -> Claim | None:
    """Claim a trial that is to be given up because it kills its workers. None: there is none."""
    with store.engine.begin() as connection:
        trial_id = connection.scalar(leases.hopeless(store, study))
        return None if trial_id is None else _take(connection, store, trial_id, worker)


def _take(connection: Connection, store: Store, trial_id: int, worker: str) -> Claim:
    attempt, crashes = leases.take(connection, store, trial_id, worker)
    started = func.coalesce(trials.c.datetime_start, _UTC_NOW)
    number = connection.execute(
        trials.update()
        .where(trials.c.trial_id == trial_id)
        .values(state=TrialState.RUNNING, datetime_start=started)
        .returning(trials.c.number)
    ).scalar_one()
    return Claim(trial_id, number, attempt, worker, crashes)


def release(store: Store, claim: Claim) -> None:
    """Put the trial back as a waiting slot, if it is still ours. Parameters and rungs stay."""
    ours = select(lease.c.attempt).where(*leases.ours(claim)).with_for_update()
    with store.engine.begin() as connection:
        if connection.execute(ours).first() is None:
            return
        connection.execute(
            trials.update()
            .where(trials.c.trial_id == claim.trial_id, trials.c.state == TrialState.RUNNING)
            .values(state=TrialState.WAITING)
        )
        connection.execute(leases.give_up(claim))


def remaining(store: Store, study: optuna.Study) -> int:
    """Trials of the study's total that have not ended, made or not."""
    with store.engine.connect() as connection:
        ended = connection.scalar(
            select(func.count())
            .select_from(trials)
            .where(
                trials.c.study_id == study._study_id,
                trials.c.state.in_((TrialState.COMPLETE, TrialState.PRUNED)),
            )
        )
    return max(int(study.user_attrs[TOTAL_KEY]) - int(ended or 0), 0)


def _waiting(study: optuna.Study) -> sqlalchemy.Select[Any]:
    return (
        select(trials.c.trial_id)
        .where(trials.c.study_id == study._study_id, trials.c.state == TrialState.WAITING)
        .order_by(trials.c.trial_id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _count(connection: Connection, study: optuna.Study) -> tuple[int, int, int]:
    """Trials made, those that count towards the total, and those that wait."""
    counted = func.count().filter(trials.c.state != TrialState.FAIL)
    waiting = func.count().filter(trials.c.state == TrialState.WAITING)
    query = select(func.count(), counted, waiting).select_from(trials)
    row = connection.execute(query.where(trials.c.study_id == study._study_id)).one()
    return int(row[0]), int(row[1]), int(row[2])


def _make(connection: Connection, study: optuna.Study, numbers: range, starts: Starts) -> None:
    if not numbers:
        return
    values = starts() if numbers[0] < START_POINTS else []
    rows = [
        {"study_id": study._study_id, "number": number, "state": TrialState.WAITING}
        for number in numbers
    ]
    made = connection.execute(
        trials.insert().returning(trials.c.trial_id, trials.c.number), rows
    ).all()
    fixed = [
        {
            "trial_id": trial_id,
            "key": "fixed_params",
            "value_json": json.dumps(values[number] if number < len(values) else {}),
        }
        for trial_id, number in made
    ]
    connection.execute(system_attributes.insert(), fixed)


def _withdraw(connection: Connection, study: optuna.Study, surplus: int) -> None:
    """End the last `surplus` waiting slots as failed."""
    last = (
        select(trials.c.trial_id)
        .where(trials.c.study_id == study._study_id, trials.c.state == TrialState.WAITING)
        .order_by(trials.c.number.desc())
        .limit(surplus)
        .with_for_update(skip_locked=True)
    )
    for trial_id in connection.scalars(last).all():
        connection.execute(
            trials.update()
            .where(trials.c.trial_id == trial_id)
            .values(state=TrialState.FAIL, datetime_complete=_UTC_NOW)
        )
        connection.execute(
            user_attributes.insert().values(
                trial_id=trial_id, key="outcome", value_json=json.dumps("withdrawn")
            )
        )
