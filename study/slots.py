"""Slots and claims: which trials there are to be, and who takes which.

A slot is an Optuna trial that waits. Filling and claiming are one SQL transaction each, so that a
process that dies, or a connection that drops, in their middle has done nothing. They write
Optuna's tables directly: its own calls cannot be made conditional on ours.
"""

import json
from collections.abc import Callable

import optuna
from optuna.trial import TrialState
from sqlalchemy import Connection, TextClause, func, select, text

from objectives.outcome import Outcome
from study import leases
from study.leases import Claim
from study.plan import Held, Slot, Values
from study.schema import attribute_told, system_attributes, trial_values, trials, user_attributes
from study.schema import leases as lease
from study.storage import Store

TOTAL_KEY = "bnvit:trials"  # attribute of a study: how many trials it is to have
FIXED_PARAMS = "fixed_params"  # Optuna's attribute: values that its suggest_… will answer
OUTCOME = "outcome"  # attribute of a trial that has ended: how
STOP_KEY = "bnvit:stop"  # attribute of a study: workers finish their trials and leave
MOST_WAITING = 100  # slots made ahead: each look at a study reads all its open trials
REFILL_EVERY = 25  # claims: so that many workers do not all find none, and wait for who makes them

SlotValues = Callable[[range, Held], list[Values]]
"""Values for new slots of these numbers; an empty one is left to the sampler.

Fewer where the others are not known before slots that are held have ended.
"""

_UTC_NOW = func.timezone("UTC", func.now())  # as Optuna stores times
_FILL_LOCK = 7_231_100_000  # plus the study's id in Optuna


def _claiming(which: str, waiting: str) -> TextClause:
    """The statement that claims a running trial t with lease l, else one that waits."""
    return text(f"""
        WITH running AS (
            SELECT t.trial_id FROM trials t JOIN bnvit.lease l USING (trial_id)
            WHERE t.study_id = :study AND t.state = 'RUNNING' AND {which}
            ORDER BY t.number LIMIT 1
            FOR UPDATE SKIP LOCKED
        ), waiting AS (
            SELECT trial_id FROM trials
            WHERE study_id = :study AND state = 'WAITING'
            AND {waiting} AND NOT EXISTS (SELECT FROM running)
            ORDER BY trial_id LIMIT 1
            FOR UPDATE SKIP LOCKED
        ), chosen AS (
            SELECT trial_id FROM running UNION ALL SELECT trial_id FROM waiting
        ), taken AS (
            {leases.TAKE}
        ), begun AS (
            UPDATE trials t SET
                state = 'RUNNING',
                datetime_start = coalesce(t.datetime_start, timezone('UTC', now()))
            FROM chosen WHERE t.trial_id = chosen.trial_id
            RETURNING t.trial_id, t.number
        )
        SELECT trial_id, number, attempt, crashes, images_saved
        FROM begun JOIN taken USING (trial_id)
    """)


def not_stopped(study_id: str) -> str:
    """The condition that a study was not stopped, as SQL; its parameter `stop` is STOP_KEY."""
    return f"""NOT EXISTS (
        SELECT FROM study_user_attributes stop
        WHERE stop.study_id = {study_id} AND stop.key = :stop AND stop.value_json <> 'false'
    )"""


_IS_SERVED = not_stopped(":study")
_CLAIM = _claiming(f"(l.worker = :worker OR {leases.IS_EXPIRED}) AND {_IS_SERVED}", _IS_SERVED)
_CLAIM_OWN = _claiming(f"l.worker = :worker AND {_IS_SERVED}", _IS_SERVED)
_CLAIM_HOPELESS = _claiming(
    f"{leases.IS_EXPIRED} AND l.crashes >= {leases.MOST_CRASHES - 1}", waiting="false"
)


def fill(store: Store, study: optuna.Study, values: SlotValues, total: int | None = None) -> int:
    """Make slots towards waiting + running + finished = the study's total; failed do not count.

    At most MOST_WAITING wait at a time; the rest is made when those are claimed. `total` sets
    the total; without it the one set last holds. New slots carry the `values` given for them;
    those for which none can be given yet are made by whoever fills later.
    Surplus slots that nobody has claimed are withdrawn (they end as failed trials, without a
    run). Returns the number of slots made.
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
        return _make(connection, study, range(made, made + max(missing, 0)), values)


def lock_filling(connection: Connection, study: optuna.Study) -> None:
    """Until the transaction ends nobody else makes slots of the study."""
    lock = {"key": _FILL_LOCK + study._study_id}
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), lock)


def claim(store: Store, study: optuna.Study, worker: str, take_over: bool = True) -> Claim | None:
    """Claim an open slot: a trial whose worker has died, else the first that waits. None: none.

    A trial of `worker` itself, who holds none, is open as well: it claimed the trial without
    hearing the answer, or could not put it back. `take_over` false leaves the trials of silent
    workers alone, as one should who has just been cut off itself: they may have been as well.
    Of a study that was stopped nothing is open.
    """
    return _claim(store, study, worker, _CLAIM if take_over else _CLAIM_OWN)


def claim_hopeless(store: Store, study: optuna.Study, worker: str) -> Claim | None:
    """Claim a trial that is to be given up because it kills its workers. None: there is none."""
    return _claim(store, study, worker, _CLAIM_HOPELESS)


def _claim(store: Store, study: optuna.Study, worker: str, statement: TextClause) -> Claim | None:
    asked = {"study": study._study_id, "stop": STOP_KEY, **leases.terms(store, worker)}
    with store.at_once.connect() as connection:
        row = connection.execute(statement, asked).mappings().first()
    return None if row is None else Claim(**row, worker=worker)


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
    """Trials that have not ended: of the study's total, made or not, and those that run."""
    ended = func.count().filter(trials.c.state.in_((TrialState.COMPLETE, TrialState.PRUNED)))
    running = func.count().filter(trials.c.state == TrialState.RUNNING)
    query = select(ended, running).where(trials.c.study_id == study._study_id)
    with store.engine.connect() as connection:
        counts = connection.execute(query).one()
    return max(int(study.user_attrs[TOTAL_KEY]) - int(counts[0]), int(counts[1]))


def end_as_failed(connection: Connection, trial_id: int, told: dict[str, str]) -> None:
    """End an open trial as failed, `told` as its attributes; one that has ended stays as it is."""
    ended = connection.execute(
        trials.update()
        .where(trials.c.trial_id == trial_id)
        .where(trials.c.state.in_((TrialState.WAITING, TrialState.RUNNING)))
        .values(state=TrialState.FAIL, datetime_complete=_UTC_NOW)
    )
    if ended.rowcount == 0:
        return
    for key, value in told.items():
        connection.execute(attribute_told(trial_id, key, value))


def _count(connection: Connection, study: optuna.Study) -> tuple[int, int, int]:
    """Trials made, those that count towards the total, and those that wait."""
    counted = func.count().filter(trials.c.state != TrialState.FAIL)
    waiting = func.count().filter(trials.c.state == TrialState.WAITING)
    query = select(func.count(), counted, waiting).select_from(trials)
    row = connection.execute(query.where(trials.c.study_id == study._study_id)).one()
    return int(row[0]), int(row[1]), int(row[2])


def _make(connection: Connection, study: optuna.Study, numbers: range, values: SlotValues) -> int:
    """Make slots of these numbers, as far as there are values; returns how many."""
    given = values(numbers, lambda: _held(connection, study)) if numbers else []
    numbers = numbers[: len(given)]
    if not numbers:
        return 0
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
            "key": FIXED_PARAMS,
            "value_json": json.dumps(given[number - numbers.start]),
        }
        for trial_id, number in made
    ]
    connection.execute(system_attributes.insert(), fixed)
    return len(numbers)


def _held(connection: Connection, study: optuna.Study) -> list[Slot]:
    """The slots that have not failed; a trial ends and is told of by one statement."""
    fixed, told, value = system_attributes.c, user_attributes.c, trial_values.c
    query = (
        select(fixed.value_json, told.value_json, value.value)
        .select_from(trials)
        .join(system_attributes, trials.c.trial_id == fixed.trial_id)
        .outerjoin(
            user_attributes,
            (trials.c.trial_id == told.trial_id)
            & (told.key == OUTCOME)
            & trials.c.state.in_((TrialState.COMPLETE, TrialState.PRUNED)),
        )
        .outerjoin(trial_values, (trials.c.trial_id == value.trial_id) & (value.objective == 0))
        .where(trials.c.study_id == study._study_id, trials.c.state != TrialState.FAIL)
        .where(fixed.key == FIXED_PARAMS)
    )
    return [
        Slot(json.loads(values), None if outcome is None else Outcome(json.loads(outcome)), reached)
        for values, outcome, reached in connection.execute(query)
    ]


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
        end_as_failed(connection, trial_id, {"outcome": "withdrawn"})
