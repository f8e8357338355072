"""Suggestions on real Postgres: kept whole, the same for the same slot, with what they saw."""

from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from study import service, slots
from study.docket import Docket
from study.job import Job
from study.leases import Claim, LeaseLostError
from study.request import Request
from study.service import Session
from study.settings import Settings
from study.storage import Store
from study.studies import find_study, set_stopped
from study.suggestion import SUGGESTED_BY, VISIBLE, suggest
from study.words import ranges
from tests.conftest import CPU
from tests.study.conftest import cut_off_where, end_lease
from tests.study.made import make_study

Search = Callable[..., Session]


@pytest.fixture
def job(store: Store, settings: Settings, small: Request) -> Job:
    """A study with five ended trials, made by hand, and one that waits."""
    made = make_study(store, small.study_name)
    for number in range(5):
        made.trial(values=(0.1 + 0.1 * number,))
    return with_one_more(small, store, settings)


@pytest.fixture
def trained_job(store: Store, settings: Settings, small: Request, search: Search) -> Job:
    """The same, trained."""
    search(small, trials=5)
    return with_one_more(small, store, settings)


def with_one_more(request: Request, store: Store, settings: Settings) -> Job:
    with service.open_session(replace(request, trials=6), settings, lambda _: None):
        pass
    (found,) = Docket(store, settings, CPU, [request.study_name]).jobs()
    return found


def claimed(job: Job) -> Claim:
    claim = slots.claim(job.store, job.study, "test")
    assert claim is not None
    set_stopped(find_study(job.store, job.study.study_name), True)  # for nobody else to serve
    job.storage.take_up(claim.trial_id)
    return claim


def write(job: Job, claim: Claim) -> None:
    job.storage.write(claim, images_seen=0, images_saved=0)


def test_a_suggestion_is_kept_with_what_it_was_inferred_from(trained_job: Job) -> None:
    claim = claimed(trained_job)
    values = suggest(trained_job, claim.trial_id)
    assert trained_job.store.storage.get_trial(claim.trial_id).params == {}, "written all at once"
    write(trained_job, claim)
    trial = trained_job.store.storage.get_trial(claim.trial_id)
    assert trial.params == values
    assert trial.user_attrs[SUGGESTED_BY] == "tpe"
    assert trial.user_attrs[VISIBLE] == {"finished": "0-4", "running": ""}
    trained_job.storage.take_up(claim.trial_id)
    assert suggest(trained_job, claim.trial_id) == values


def test_a_write_that_fails_half_way_has_written_nothing(job: Job) -> None:
    claim = claimed(job)
    values = suggest(job, claim.trial_id)
    rows = "SELECT * FROM trial_system_attributes FOR UPDATE"
    error = cut_off_where(job.store, rows, lambda: write(job, claim))
    assert isinstance(error, OperationalError)
    assert job.store.storage.get_trial(claim.trial_id).params == {}
    write(job, claim)
    assert job.store.storage.get_trial(claim.trial_id).params == values


def test_one_who_has_lost_the_trial_writes_nothing(job: Job) -> None:
    claim = claimed(job)
    suggest(job, claim.trial_id)
    end_lease(job.store, claim)
    set_stopped(find_study(job.store, job.study.study_name), False)
    assert slots.claim(job.store, job.study, "other") is not None
    with pytest.raises(LeaseLostError):
        write(job, claim)
    assert job.store.storage.get_trial(claim.trial_id).params == {}


def test_the_same_slot_gets_the_same_suggestion(job: Job) -> None:
    claim = claimed(job)
    first = suggest(job, claim.trial_id)
    job.storage.take_up(claim.trial_id)  # nothing was written
    assert suggest(job, claim.trial_id) == first


def test_what_optuna_reads_back_is_what_it_was_told(job: Job) -> None:
    claim = claimed(job)
    values = suggest(job, claim.trial_id)
    trial = optuna.trial.Trial(job.study, claim.trial_id)
    trial.report(0.25, 10)
    trial.set_constraint("finite", -1.0)
    job.study.tell(trial, 0.5)
    write(job, claim)
    stored = find_study(job.store, job.study.study_name).get_trials()[claim.number]
    assert (stored.state.name, stored.value) == ("COMPLETE", 0.5)
    assert (stored.params, stored.intermediate_values) == (values, {10: 0.25})
    assert stored.constraints == {"finite": -1.0}
    assert stored.datetime_complete is not None
    seen = {trial.number: trial for trial in job.storage.picture.look()}[claim.number]
    told = ("state", "value", "params", "distributions", "intermediate_values", "constraints")
    for name in told:
        assert getattr(seen, name) == getattr(stored, name)


def test_a_picture_agrees_with_optuna_on_a_whole_study(trained_job: Job) -> None:
    stored = find_study(trained_job.store, trained_job.study.study_name).get_trials()
    for seen in trained_job.storage.picture.look():
        twin = stored[seen.number]
        for name in ("_trial_id", "state", "value", "params", "intermediate_values"):
            assert getattr(seen, name, None) == getattr(twin, name, None)
    ended = [trial for trial in stored if trial.state.is_finished()]
    assert [trial.number for trial in trained_job.storage.picture.memorable()] == [
        t.number for t in ended
    ]


@pytest.mark.parametrize(
    ("numbers", "told"),
    [([], ""), ([3], "3"), ([2, 0, 1], "0-2"), ([0, 1, 3, 5, 6, 7], "0-1,3,5-7")],
)
def test_numbers_are_told_in_short(numbers: list[int], told: str) -> None:
    assert ranges(numbers) == told
