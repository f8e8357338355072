"""A trial once more: the same suggestion under parallelism, and the same curve."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from models.errors import InputError
from study import slots
from study.docket import Docket
from study.experiment_requests import planned
from study.job import Job
from study.leases import Claim
from study.plan import Plan
from study.replica import Replica, replay, replica_lines
from study.request import Request
from study.service import Session, open_session
from study.settings import Settings
from study.storage import Store
from study.studies import find_study
from study.suggestion import VISIBLE, suggest
from study.words import numbers_of, ranges
from tests.conftest import CPU
from tests.study.conftest import end_lease, train

Search = Callable[..., Session]
Again = Callable[[str, int], Replica]


@pytest.fixture
def again(store: Store, settings: Settings) -> Again:
    return lambda name, number: replay(store, settings, name, number, "cpu", lambda _: None)


def suggested(job: Job, worker: str) -> Claim:
    """A trial that `worker` has taken up and that has its values."""
    claim = slots.claim(job.store, job.study, worker)
    assert claim is not None
    job.storage.take_up(claim.trial_id)
    suggest(job, claim.trial_id)
    job.storage.write(claim, images_seen=0, images_saved=0)
    return claim


def test_trials_suggested_side_by_side_are_the_same_again(
    store: Store, settings: Settings, small: Request, search: Search, again: Again
) -> None:
    small = replace(small, train_images=300, pruner="median")
    search(small, trials=5)
    with open_session(replace(small, trials=7), settings, lambda _: None) as session:
        (job,) = Docket(store, settings, CPU, [small.study_name]).jobs()
        for claim in [suggested(job, worker) for worker in ("one", "other")]:
            end_lease(store, claim)  # both die, and their trials are trained by somebody else
        train(session)
    trials = find_study(store, small.study_name).get_trials()
    assert trials[6].user_attrs[VISIBLE] == {"finished": "0-4", "running": "5"}
    found = [again(small.study_name, number) for number in range(7)]
    assert [one.is_suggestion_same for one in found] == [True] * 7
    assert [one.is_curve_same for one in found] == [True] * 7
    assert [one.then for one in found] == [trial.params for trial in trials]
    assert [one.suggested_by for one in found] == ["start"] * 4 + ["tpe"] * 3
    assert "curve:   the same to the last digit" in list(replica_lines(found[-1]))
    assert find_study(store, small.study_name).get_trials() == trials  # nothing was written


def test_a_run_on_all_images_is_compared_by_its_loss(
    small: Request, search: Search, again: Again
) -> None:
    plan = Plan("fit", ((1e-3, 50),), seeds=1, trained_on="train+val")
    search(planned(replace(small, train_images=200), plan))
    found = again(small.study_name, 0)
    assert found.is_same
    (rung,) = found.rungs
    assert rung.is_loss
    assert rung.then == rung.now
    assert "loss" in next(line for line in replica_lines(found) if line.startswith("curve"))


def test_what_is_not_the_same_is_said(
    store: Store, small: Request, search: Search, again: Again
) -> None:
    search(small)
    trial = find_study(store, small.study_name).get_trials()[1]
    other = replace(again(small.study_name, 1), then={**trial.params, "lr": 9.0})
    assert not other.is_same
    assert any("OTHERS" in line for line in replica_lines(other))
    rung = other.rungs[0]
    changed = replace(other, rungs=(replace(rung, now=(rung.then or 0) + 0.25),))
    assert "curve:   differs by at most 25.00 points" in list(replica_lines(changed))


def test_a_diverged_trial_diverges_again(
    store: Store, small: Request, search: Search, again: Again
) -> None:
    plan = Plan("sweep", ((1e25, 50),), seeds=1, trained_on="train")
    search(planned(replace(small, train_images=100), plan))
    assert find_study(store, small.study_name).get_trials()[0].user_attrs["outcome"] == "diverged"
    found = again(small.study_name, 0)
    assert (found.outcome_then, found.outcome_now, found.is_same) == ("diverged", "diverged", True)


def test_only_a_trial_that_has_ended_can_be_repeated(
    small: Request, settings: Settings, again: Again
) -> None:
    with open_session(small, settings, lambda _: None):
        pass
    with pytest.raises(InputError, match="has no trial 9; its trials are 0 to 3"):
        again(small.study_name, 9)
    with pytest.raises(InputError, match="has not come to an end"):
        again(small.study_name, 0)


def test_numbers_are_read_as_they_were_told() -> None:
    for numbers in ([], [3], [0, 1, 2, 7, 9, 10]):
        assert numbers_of(ranges(numbers)) == numbers
