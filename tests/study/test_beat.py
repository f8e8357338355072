"""Signs of life on real Postgres."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import optuna
import pytest
import sqlalchemy
from sqlalchemy import select, text

from study import beat as beat_module
from study import leases, slots
from study.beat import BEATS_PER_LEASE, Beat, Progress, Worker
from study.leases import Claim
from study.schema import workers
from study.storage import Store
from tests.integration.processes import until
from tests.study.conftest import blank, lease_of

WORKER = Worker("me", "node", 1, "cpu", {}, 0.0)
LEASE_S = 0.6


@pytest.fixture
def quick(store: Store) -> Store:
    return replace(store, lease_s=LEASE_S)


@pytest.fixture
def claim(quick: Store, study: optuna.Study) -> Claim:
    slots.fill(quick, study, blank, 1)
    made = slots.claim(quick, study, WORKER.name)
    assert made is not None
    return made


@pytest.fixture
def beat(quick: Store) -> Iterator[Beat]:
    with Beat(quick, WORKER) as made:
        yield made


def signed_on(store: Store) -> bool:
    with store.engine.connect() as connection:
        query = select(workers.c.name).where(workers.c.name == WORKER.name)
        return connection.execute(query).first() is not None


def test_a_worker_signs_on_and_off(quick: Store) -> None:
    with Beat(quick, WORKER):
        assert signed_on(quick)
    assert not signed_on(quick)


def test_the_beat_extends_the_lease_and_tells_the_progress(
    quick: Store, study: optuna.Study, claim: Claim, beat: Beat
) -> None:
    with beat.holding(claim, lambda: Progress(77, 50)):
        until(lambda: lease_of(quick, claim)["images_seen"] == 77)
        first = lease_of(quick, claim)["expires_at"]
        until(lambda: lease_of(quick, claim)["expires_at"] > first + timedelta(seconds=LEASE_S))
        assert slots.claim(quick, study, "other") is None
        assert not beat.has_lost
    row = lease_of(quick, claim)
    assert row["images_saved"] == 50
    until(lambda: slots.claim(quick, study, "other") is not None, 10)


def test_the_holder_learns_that_it_has_lost_the_trial(
    quick: Store, claim: Claim, beat: Beat
) -> None:
    with beat.holding(claim, lambda: Progress(0, 0)):
        with quick.engine.begin() as connection:  # as a worker that takes it over does
            taken = text(
                "UPDATE bnvit.lease SET attempt = 2, worker = 'other' WHERE trial_id = :id"
            )
            assert connection.execute(taken, {"id": claim.trial_id}).rowcount == 1
        until(lambda: beat.has_lost)
        assert not leases.extend(quick, claim, 0, 0)


def test_a_beat_that_outlasts_its_worker_does_not_sign_on_again(
    quick: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beat_module, "LEAVE_S", 0.01)
    begun, go_on = threading.Event(), threading.Event()
    with Beat(quick, WORKER) as beat:
        sign = beat._sign

        def slowly() -> None:
            begun.set()
            go_on.wait()
            sign()

        monkeypatch.setattr(beat, "_sign", slowly)
        assert begun.wait(60)
    assert not signed_on(quick)
    go_on.set()
    beat._thread.join(60)
    assert not signed_on(quick)


def test_a_beat_does_not_deny_an_outage_that_was_found_during_it(
    quick: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = Beat(quick, WORKER)
    with monkeypatch.context() as patch:
        patch.setattr(beat, "_sign", beat.note_outage)
        beat._beat()
    assert not beat.is_reachable
    beat._beat()
    assert beat.is_reachable


def test_after_an_outage_a_worker_is_not_settled_at_once(store: Store) -> None:
    with Beat(replace(store, lease_s=6), WORKER) as beat:
        until(lambda: beat.is_settled)
        beat.note_outage()
        assert not beat.is_reachable
        assert not beat.is_settled
        until(lambda: beat.is_reachable)
        assert not beat.is_settled
        until(lambda: beat.is_settled)


def test_a_beat_that_fails_is_only_noted(
    quick: Store, beat: Beat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise sqlalchemy.exc.OperationalError("", None, Exception())

    with monkeypatch.context() as patch:
        patch.setattr(beat, "_sign", away)
        until(lambda: not beat.is_reachable)
    until(lambda: beat.is_reachable)
    assert quick.lease_s / BEATS_PER_LEASE < 1
