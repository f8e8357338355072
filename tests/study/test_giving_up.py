"""Giving up a trial that kills its workers, on real Postgres."""

import optuna
import pytest
from optuna.trial import TrialState

from study import giving_up, leases, slots
from study.leases import Claim
from study.storage import Store
from tests.study.conftest import blank, end_lease


@pytest.fixture
def held(store: Store, study: optuna.Study) -> Claim:
    """A claim on the only trial of a study."""
    slots.fill(store, study, blank, 1)
    found = slots.claim(store, study, "first")
    assert found is not None
    return found


def give_up(store: Store, study: optuna.Study, claim: Claim) -> None:
    giving_up.give_up(store, study, None, claim, None)


def test_it_fails_once_with_the_reason_however_often_it_is_told(
    store: Store, study: optuna.Study, held: Claim
) -> None:
    for _ in range(2):  # as where the answer to the first was lost
        give_up(store, study, held)
    (trial,) = study.trials
    assert trial.state == TrialState.FAIL
    assert trial.datetime_complete is not None
    assert trial.user_attrs["outcome"] == "failed"
    assert "workers in a row died" in trial.user_attrs["reason"]


def test_one_who_has_lost_the_trial_gives_nothing_up(
    store: Store, study: optuna.Study, held: Claim
) -> None:
    end_lease(store, held)
    second = slots.claim(store, study, "second")
    assert second is not None
    give_up(store, study, held)
    assert study.trials[0].state == TrialState.RUNNING
    assert leases.extend(store, second, 0, 0)


def test_a_trial_that_has_ended_meanwhile_keeps_its_outcome(
    store: Store, study: optuna.Study, held: Claim
) -> None:
    store.storage.set_trial_state_values(held.trial_id, TrialState.COMPLETE, [0.5])
    give_up(store, study, held)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    assert "reason" not in trial.user_attrs
