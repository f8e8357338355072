"""Suggestions on real Postgres: kept whole, the same for the same slot, with what they saw."""

from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest

from study import service, slots
from study.docket import Docket
from study.job import Job
from study.request import Request
from study.service import Session
from study.settings import Settings
from study.storage import Store
from study.studies import find_study, set_stopped
from study.suggestion import SUGGESTED_BY, VISIBLE, ranges, suggest
from tests.conftest import CPU

Search = Callable[..., Session]


@pytest.fixture
def job(store: Store, settings: Settings, small: Request, search: Search) -> Job:
    """A study with five ended trials and one that waits."""
    search(small, trials=5)
    with service.open_session(replace(small, trials=6), settings, lambda _: None):
        pass
    (found,) = Docket(store, settings, CPU, [small.study_name]).jobs()
    return found


def claimed(job: Job) -> int:
    claim = slots.claim(job.store, job.study, "test")
    assert claim is not None
    set_stopped(find_study(job.store, job.study.study_name), True)  # for nobody else to serve
    return claim.trial_id


def test_a_suggestion_is_kept_with_what_it_was_inferred_from(job: Job) -> None:
    trial_id = claimed(job)
    values = suggest(job, trial_id)
    trial = job.store.storage.get_trial(trial_id)
    assert trial.params == values
    assert trial.user_attrs[SUGGESTED_BY] == "tpe"
    assert trial.user_attrs[VISIBLE] == {"finished": "0-4", "running": ""}
    assert suggest(job, trial_id) == values


def test_an_interrupted_suggestion_goes_on_with_the_same_values(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_id = claimed(job)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "suggest_int", lambda *_: _die())
        with pytest.raises(SystemExit):
            suggest(job, trial_id)
    half = job.store.storage.get_trial(trial_id)
    assert set(half.params) == {"lr"}
    proposed = half.system_attrs["fixed_params"]
    assert suggest(job, trial_id) == proposed


def test_the_same_slot_gets_the_same_suggestion(job: Job) -> None:
    trial_id = claimed(job)
    first = suggest(job, trial_id)
    again = _forgotten(job, trial_id)
    assert suggest(job, again) == first


def _forgotten(job: Job, trial_id: int) -> int:
    """The same trial without its values."""
    with job.store.engine.begin() as connection:
        for table in ("trial_params", "trial_system_attributes"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE trial_id = {trial_id}")
    return trial_id


def _die() -> None:
    raise SystemExit


@pytest.mark.parametrize(
    ("numbers", "told"),
    [([], ""), ([3], "3"), ([2, 0, 1], "0-2"), ([0, 1, 3, 5, 6, 7], "0-1,3,5-7")],
)
def test_numbers_are_told_in_short(numbers: list[int], told: str) -> None:
    assert ranges(numbers) == told
