"""Slots, claims and leases on real Postgres."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import optuna
import pytest
from optuna.trial import TrialState

from study import slots
from study.slots import Claim, leases
from study.storage import Store


@pytest.fixture
def study(store: Store) -> optuna.Study:
    return optuna.create_study(study_name=str(uuid4()), storage=store.storage)


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that end at once."""
    monkeypatch.setattr(slots, "LEASE_S", 0)


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def test_slots_are_made_once_with_their_start_values(store: Store, study: optuna.Study) -> None:
    starts = [{"lr": 0.1}, {"lr": 0.2}]
    for _ in range(2):
        slots.fill(store, study, starts, 3)
    trials = study.get_trials()
    assert states(study) == ["WAITING"] * 3
    fixed = [trial.system_attrs["fixed_params"] for trial in trials]
    assert fixed == [{"lr": 0.1}, {"lr": 0.2}, {}]


def test_many_fillers_make_exactly_the_slots_asked_for(store: Store, study: optuna.Study) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: slots.fill(store, study, [], 20), range(4)))
    assert len(study.get_trials()) == 20


def test_each_slot_is_claimed_once_and_in_order(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, [], 12)
    claims: list[Claim] = []
    lock = threading.Lock()

    def claim_all(name: str) -> None:
        while (claim := slots.claim(store, study, name)) is not None:
            with lock:
                claims.append(claim)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(claim_all, "abcd"))
    assert len({claim.trial_id for claim in claims}) == len(claims) == 12
    assert {claim.attempt for claim in claims} == {1}
    assert states(study) == ["RUNNING"] * 12


def test_a_live_lease_keeps_others_away(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, [], 1)
    assert slots.claim(store, study, "a") is not None
    assert slots.claim(store, study, "b") is None


@pytest.mark.usefixtures("short_lease")
def test_an_expired_lease_is_taken_over_and_its_holder_knows(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, [], 1)
    first = slots.claim(store, study, "a")
    second = slots.claim(store, study, "b")
    assert first is not None
    assert second is not None
    assert (second.trial_id, second.attempt) == (first.trial_id, 2)
    assert not slots.holds(store, first)
    assert slots.holds(store, second)
    assert _lease(store, second)["crashes"] == 1
    slots.release(store, first)  # too late: the trial is another's
    assert states(study) == ["RUNNING"]


def test_a_worker_that_died_between_lease_and_flip_leaves_a_claimable_slot(
    store: Store, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots.fill(store, study, [], 1)
    with monkeypatch.context() as patch:
        patch.setattr(slots, "LEASE_S", 0)
        patch.setattr(store.storage, "set_trial_state_values", lambda *_: _die())
        with pytest.raises(SystemExit):
            slots.claim(store, study, "a")
    assert states(study) == ["WAITING"]
    claim = slots.claim(store, study, "b")
    assert claim is not None
    assert claim.attempt == 2


def _die() -> None:
    raise SystemExit


def test_a_released_trial_waits_with_its_parameters_and_rungs(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, [], 1)
    claim = slots.claim(store, study, "a")
    assert claim is not None
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
    again = slots.claim(store, study, "b")
    assert again is not None
    lease = _lease(store, again)
    assert (lease["attempt"], lease["crashes"]) == (2, 0)


def test_a_finished_trial_is_never_claimed(store: Store, study: optuna.Study) -> None:
    slots.fill(store, study, [], 1)
    claim = slots.claim(store, study, "a")
    assert claim is not None
    study.tell(0, 1.0)
    with store.engine.begin() as connection:  # as if the lease had run out
        connection.execute(leases.delete().where(leases.c.trial_id == claim.trial_id))
    assert slots.claim(store, study, "b") is None


def test_the_beat_extends_the_lease_and_tells_the_progress(
    store: Store, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "BEAT_S", 0.05)
    slots.fill(store, study, [], 1)
    claim = slots.claim(store, study, "a")
    assert claim is not None
    told = threading.Event()

    def images_seen() -> int:
        told.set()
        return 77

    before = _lease(store, claim)
    with slots.Beat(store, claim, images_seen):
        assert told.wait(10)
    after = _lease(store, claim)
    assert str(after["expires_at"]) > str(before["expires_at"])
    assert (before["images_seen"], after["images_seen"]) == (0, 77)


def _lease(store: Store, claim: Claim) -> dict[str, object]:
    with store.engine.connect() as connection:
        query = leases.select().where(leases.c.trial_id == claim.trial_id)
        return dict(connection.execute(query).mappings().one())


def test_a_failed_trial_is_replaced_and_a_surplus_withdrawn(
    store: Store, study: optuna.Study
) -> None:
    slots.fill(store, study, [], 3)
    assert slots.claim(store, study, "a") is not None
    study.tell(0, state=TrialState.FAIL)
    slots.fill(store, study, [])  # the total set last
    assert states(study) == ["FAIL", "WAITING", "WAITING", "WAITING"]
    slots.fill(store, study, [], 1)
    assert states(study) == ["FAIL", "WAITING", "FAIL", "FAIL"]
