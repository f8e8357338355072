"""Slots and claims on real Postgres."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from objectives.outcome import Outcome
from study import leases, slots
from study.errors import StorageError
from study.leases import Claim, LeaseLostError
from study.plan import Slot
from study.schema import leases as lease_table
from study.schema import prepare, versions
from study.storage import Store
from study.studies import set_stopped
from tests.study.conftest import blank, cut_off_where, end_lease, lease_of

GONE = 1e-6  # seconds: a lease that has run out when the next statement looks


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def claimed(store: Store, study: optuna.Study, worker: str) -> Claim:
    claim = slots.claim(store, study, worker)
    assert claim is not None
    return claim


def test_slots_are_made_once_with_their_start_values(store: Store, study: optuna.Study) -> None:
    starts = [{"lr": 0.1}, {"lr": 0.2}, {}]
    assert slots.fill(store, study, lambda numbers, _: [starts[n] for n in numbers], 3) == 3
    assert slots.fill(store, study, lambda numbers, _: [starts[n] for n in numbers], 3) == 0
    trials = study.get_trials()
    assert states(study) == ["WAITING"] * 3
    fixed = [trial.system_attrs["fixed_params"] for trial in trials]
    assert fixed == [{"lr": 0.1}, {"lr": 0.2}, {}]


def test_values_that_are_not_known_yet_are_left_to_a_later_fill(
    store: Store, study: optuna.Study
) -> None:
    assert slots.fill(store, study, lambda numbers, _: [{} for _ in numbers[:2]], 5) == 2
    assert slots.fill(store, study, lambda _, __: []) == 0
    assert (states(study), slots.remaining(store, study)) == (["WAITING"] * 2, 5)
    assert slots.fill(store, study, blank) == 3
    assert [trial.number for trial in study.get_trials()] == list(range(5))


def test_who_gives_values_is_told_how_the_slots_before_ended(
    store: Store, study: optuna.Study
) -> None:
    given = [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}, {"lr": 0.4}]
    slots.fill(store, study, lambda numbers, _: [given[n] for n in numbers], 4)
    for worker in "abc":
        claimed(store, study, worker)
    for trial, outcome in zip(study.get_trials(), ("diverged", "complete", "failed"), strict=False):
        storage = store.storage
        storage.set_trial_user_attr(trial._trial_id, "outcome", outcome)
    study.tell(0, 0.1)
    study.tell(2, state=TrialState.FAIL)
    told: list[Slot] = []
    slots.fill(store, study, lambda _, held: told.extend(held()) or [], 5)  # type: ignore[func-returns-value]
    assert sorted(told, key=lambda slot: slot.values["lr"]) == [
        Slot({"lr": 0.1}, Outcome.DIVERGED, 0.1),
        Slot({"lr": 0.2}),  # it runs still, whatever it says of itself
        Slot({"lr": 0.4}),
    ]


def test_many_fillers_make_exactly_the_slots_asked_for(store: Store, study: optuna.Study) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: slots.fill(store, study, blank, 20), range(4)))
    assert len(study.get_trials()) == 20
    assert [trial.number for trial in study.get_trials()] == list(range(20))


def test_a_filler_whose_connection_is_cut_in_its_middle_has_made_nothing(
    store: Store, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(slots, "_make", lambda connection, *_: _cut(store, connection))
        with pytest.raises(sqlalchemy.exc.OperationalError):
            slots.fill(store, study, blank, 3)
    assert states(study) == []
    slots.fill(store, study, blank, 3)
    assert states(study) == ["WAITING"] * 3


def _cut(store: Store, connection: sqlalchemy.Connection) -> None:
    """End the connection from the server's side, as an administrator or a failover does."""
    pid = connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()"))
    with store.engine.connect() as other:
        other.execute(sqlalchemy.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    connection.execute(sqlalchemy.text("SELECT 1"))


def test_a_large_study_makes_its_slots_as_they_are_claimed(
    store: Store, study: optuna.Study
) -> None:
    assert slots.fill(store, study, blank, 1000) == slots.MOST_WAITING
    for worker in "abc":
        claimed(store, study, worker)
    assert slots.fill(store, study, blank) == 3
    assert slots.remaining(store, study) == 1000


def test_each_slot_is_claimed_once_and_in_order(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, blank, 12)
    claims: list[Claim] = []
    lock = threading.Lock()

    def claim_all(name: str) -> None:
        while (claim := slots.claim(store, study, f"{name}-{uuid4().hex}")) is not None:
            with lock:
                claims.append(claim)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(claim_all, "abcd"))
    assert len({claim.trial_id for claim in claims}) == len(claims) == 12
    assert {claim.attempt for claim in claims} == {1}
    assert states(study) == ["RUNNING"] * 12
    started = [trial.datetime_start for trial in study.get_trials()]
    assert all(started)


def test_a_live_lease_keeps_others_away(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, blank, 1)
    claimed(store, study, "a")
    assert slots.claim(store, study, "b") is None


def test_a_claim_that_dies_in_its_middle_leaves_the_slot_as_it_was(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 1)
    row = (
        "INSERT INTO bnvit.lease (trial_id, attempt, crashes, worker, expires_at, images_seen) "
        "SELECT trial_id, 1, 0, 'b', now(), 0 FROM trials "
        f"WHERE study_id = {study._study_id} AND state = 'WAITING'"
    )
    error = cut_off_where(store, row, lambda: slots.claim(store, study, "a"))
    assert isinstance(error, OperationalError)
    assert states(study) == ["WAITING"]
    assert claimed(store, study, "b").attempt == 1


def test_of_a_stopped_study_nothing_is_claimed(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, blank, 2)
    end_lease(store, claimed(store, study, "a"))
    set_stopped(study, True)
    assert slots.claim(store, study, "a") is None
    assert slots.claim(store, study, "b") is None
    set_stopped(study, False)
    assert [claimed(store, study, worker).attempt for worker in "bc"] == [2, 1]


def test_an_expired_lease_is_taken_over_and_its_holder_knows(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 1)
    first = claimed(store, study, "a")
    started = study.get_trials()[0].datetime_start
    assert slots.claim(store, study, "b") is None
    end_lease(store, first)
    second = claimed(store, study, "b")
    assert (second.trial_id, second.attempt, second.crashes) == (first.trial_id, 2, 1)
    assert study.get_trials()[0].datetime_start == started
    assert not leases.extend(store, first, 1, 0)
    assert leases.extend(store, second, 1, 0)
    with pytest.raises(LeaseLostError), leases.held(store, first):
        pytest.fail("held what was lost")
    slots.release(store, first)  # too late: the trial is another's
    assert states(study) == ["RUNNING"]


def test_one_who_was_cut_off_itself_takes_nothing_over(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, blank, 2)
    end_lease(store, claimed(store, study, "a"))
    waiting = slots.claim(store, study, "b", take_over=False)
    assert waiting is not None
    assert waiting.attempt == 1
    assert slots.claim(store, study, "c", take_over=False) is None
    assert slots.claim(store, study, "c") is not None


def test_a_claim_whose_answer_was_lost_is_found_again_and_no_crash(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 2)
    first = claimed(store, study, "a")  # of which "a" has not heard
    again = slots.claim(store, study, "a", take_over=False)
    assert again is not None
    assert (again.trial_id, again.attempt, again.crashes) == (first.trial_id, 2, 0)
    assert claimed(store, study, "b").trial_id != first.trial_id


def test_a_server_that_has_just_started_gives_nobodys_trial_away(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 1)
    end_lease(store, claimed(store, study, "a"))
    year_s = 365.0 * 24 * 3600
    assert slots.claim(replace(store, lease_s=year_s), study, "b") is None
    assert slots.claim(replace(store, lease_s=GONE), study, "b") is not None


def test_a_trial_that_is_held_for_a_write_cannot_be_taken_over(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 1)
    claim = claimed(store, study, "a")
    end_lease(store, claim)
    with leases.held(store, claim):
        assert slots.claim(store, study, "b") is None
    assert slots.claim(store, study, "b") is not None


def test_a_lease_that_ran_out_unnoticed_is_simply_extended(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 1)
    claim = claimed(store, study, "a")
    end_lease(store, claim)
    assert leases.extend(store, claim, 5, 0)
    assert slots.claim(store, study, "b") is None


def test_leases_of_a_worker_known_to_be_dead_end_at_once(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, blank, 2)
    lost, kept = claimed(store, study, "dead"), claimed(store, study, "alive")
    leases.abandon(store, "dead")
    assert claimed(store, study, "b").trial_id == lost.trial_id
    assert slots.claim(store, study, "c") is None
    assert leases.extend(store, kept, 1, 0)


def test_a_trial_that_kills_three_workers_in_a_row_is_hopeless(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 1)
    claim = claimed(store, study, "a")
    for crashes in (1, 2):
        end_lease(store, claim)
        claim = claimed(store, study, f"b{crashes}")
        assert (claim.crashes, claim.is_hopeless) == (crashes, False)
        assert slots.claim_hopeless(store, study, "run") is None
    end_lease(store, claim)
    last = slots.claim_hopeless(store, study, "run")
    assert last is not None
    assert last.is_hopeless


def test_progress_between_crashes_shows_that_a_trial_is_not_to_blame(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 1)
    claim = claimed(store, study, "a")
    for images_saved in (100, 200, 300, 400):
        assert leases.extend(store, claim, images_saved + 10, images_saved)
        end_lease(store, claim)
        claim = claimed(store, study, f"b{images_saved}")
        assert claim.crashes == 1
    assert leases.extend(store, claim, 410, 400)  # no further than before
    end_lease(store, claim)
    assert claimed(store, study, "c").crashes == 2


def test_a_released_trial_waits_with_its_parameters_and_rungs(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 1)
    claim = claimed(store, study, "a")
    study.get_trials()
    trial = optuna.trial.Trial(study, claim.trial_id)
    lr = trial.suggest_float("lr", 0, 1)
    trial.report(0.5, 10)
    slots.release(store, claim)
    (waiting,) = study.get_trials()
    assert (waiting.state, waiting.params, waiting.intermediate_values) == (
        TrialState.WAITING,
        {"lr": lr},
        {10: 0.5},
    )
    again = claimed(store, study, "b")
    assert (again.attempt, again.crashes) == (2, 0)


def test_a_finished_trial_is_never_claimed(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, blank, 1)
    claim = claimed(store, study, "a")
    study.tell(0, 1.0)
    end_lease(store, claim)
    assert slots.claim(store, study, "b") is None


def test_the_lease_tells_the_progress(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, blank, 1)
    claim = claimed(store, study, "a")
    leases.extend(store, claim, 77, 50)
    leases.extend(store, claim, 20, 10)  # an attempt that had to start afresh
    row = lease_of(store, claim)
    assert (row["images_seen"], row["images_saved"]) == (20, 50)


def test_a_failed_trial_is_replaced_and_a_surplus_withdrawn(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, blank, 3)
    claimed(store, study, "a")
    study.tell(0, state=TrialState.FAIL)
    slots.fill(store, study, blank)  # the total set last
    assert states(study) == ["FAIL", "WAITING", "WAITING", "WAITING"]
    slots.fill(store, study, blank, 1)
    assert states(study) == ["FAIL", "WAITING", "FAIL", "FAIL"]
    withdrawn = study.get_trials()[2]
    assert withdrawn.user_attrs == {"outcome": "withdrawn"}
    assert withdrawn.datetime_complete is not None


def test_the_tables_of_an_older_version_are_brought_up_to_date(store: Store) -> None:
    with store.engine.connect() as connection, connection.begin() as transaction:
        for statement in (
            "DROP TABLE bnvit.version",
            "DROP TABLE bnvit.worker",
            "ALTER TABLE bnvit.lease DROP COLUMN images_saved",
        ):
            connection.execute(sqlalchemy.text(statement))
        prepare(connection)
        columns = {
            column["name"]
            for column in sqlalchemy.inspect(connection).get_columns("lease", "bnvit")
        }
        assert columns == set(lease_table.columns.keys())
        transaction.rollback()


def test_the_tables_of_a_newer_version_are_refused(store: Store) -> None:
    with store.engine.connect() as connection, connection.begin() as transaction:
        connection.execute(versions.update().values(version=99))
        with pytest.raises(StorageError, match="newer bnvit-study"):
            prepare(connection)
        transaction.rollback()
