"""What `status` and `watch` say, of rows made by hand in a real store."""

import io
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from study import status_view as view
from study.embedded import EmbeddedPostgres
from study.errors import UnknownStudyError, VersionError
from study.identity import IDENTITY_KEY
from study.settings import Settings
from study.status import StatusReader, read_status
from study.status_view import status_view, watch_status
from study.stop import Stop
from study.storage import Store, open_store
from study.studies import all_overviews, set_stopped
from study.worker_status import duration, read_workers
from tests.study.made import Made, make_study


@pytest.fixture
def store(store: Store) -> Store:
    """The shared store, whose leases last long enough for a slow machine."""
    return replace(store, lease_s=30.0)


@pytest.fixture
def made(store: Store, request: pytest.FixtureRequest) -> Iterator[Made]:
    """A study named after the test; its workers are gone afterwards."""
    made = make_study(store, request.node.name.replace("[", "-").replace("]", ""), total=6)
    yield made
    made.sign_off()


def shown(store: Store, study: str | None, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(status_view(read_status(store, study)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_study_shows_its_counts_its_best_and_who_trains_what(store: Store, made: Made) -> None:
    made.trial(suggested_by="random")
    made.trial("pruned", (0.125,))
    made.trial("failed", ())
    made.worker("alive")
    made.lease(made.trial("running", (0.25,)), "alive", images_seen=229)
    name = made.study.study_name
    (study,) = (status := read_status(store, name)).studies
    assert (len(study.seen.ended), len(study.seen.counted)) == (2, 6)
    (trial,) = study.running
    assert (trial.number, trial.worker, trial.attempt) == (3, "alive", 2)
    assert (trial.images_seen, trial.rung, trial.val_accuracy) == (229, 114, 0.25)
    assert trial.silent_s is not None
    assert 0 <= trial.silent_s < 30
    assert [worker.state for worker in status.workers] == [f"working on {name} #3"]
    text = shown(store, name)
    for expected in (
        "2 of 6 trials ended",
        "1 trained to the end, 1 stopped early, 1 running, 3 waiting, 1 failed and replaced",
        "best: trial 0, validation accuracy 75.00%",
        "25.00% at 0.124",
        f"working on {name} #3",
    ):
        assert expected in text


def test_json_has_what_is_shown_and_no_trials_that_have_ended(store: Store, made: Made) -> None:
    made.trial()
    made.worker("idler")
    told = json.loads(json.dumps(read_status(store, made.study.study_name).as_dict(), default=str))
    (study,) = told["studies"]
    assert (study["ended"], study["total"], study["best"]["number"]) == (1, 6, 0)
    assert study["outcomes"] == {"complete": 1, "waiting": 5}
    assert study["running"] == []
    (worker,) = told["workers"]
    assert worker["state"] == "idle"
    assert worker["versions"] == {"torch": "2.11"}


def test_a_silent_worker_is_named_and_its_trial_waits_for_another(store: Store, made: Made) -> None:
    made.worker("silent", silent_s=45)
    made.worker("long dead", silent_s=90_000)
    made.lease(made.trial("running"), "silent", left_s=-15)
    (study,) = (status := read_status(store, made.study.study_name)).studies
    assert study.running[0].is_lost
    silent_s = study.running[0].silent_s
    assert silent_s is not None
    assert 45 <= silent_s < 75  # a slow machine may take its time between writing and reading
    assert (study.is_worked_on, study.left_s) == (False, None)
    assert [worker.name for worker in status.workers] == ["silent"]
    assert re.fullmatch(r"silent for [4-7]\d s", status.workers[0].state)
    text = shown(store, made.study.study_name)
    assert "lost, waits for a worker" in text
    assert "waits for workers" in text


def test_a_worker_with_two_leases_works_on_the_later(store: Store, made: Made) -> None:
    made.worker("twice")
    made.lease(made.trial("running"), "twice", left_s=10)
    made.lease(made.trial("running"), "twice", left_s=30)
    made.lease(made.trial("complete"), "twice", left_s=60)
    assert [worker.number for worker in read_workers(store)] == [1]


def test_pace_and_time_left_come_from_the_last_hour(store: Store, made: Made) -> None:
    made.trial(began_s_ago=90_000, took_s=10)  # yesterday
    for minutes in (8, 6, 4):
        made.trial(began_s_ago=60 * minutes, took_s=120)
    made.worker("alive")
    made.lease(made.trial("running", (0.25,), began_s_ago=120), "alive", images_seen=400)
    (study,) = read_status(store, made.study.study_name).studies
    assert study.trials_per_hour == pytest.approx(3 * 60 / 8, rel=0.05)
    images_per_s = (3 * 917 + 400) / (8 * 60)
    assert study.left_s is not None
    assert 0 < study.left_s < 2 * 917 / images_per_s


def test_a_trial_that_began_before_the_hour_counts_by_its_share(store: Store, made: Made) -> None:
    made.trial(began_s_ago=2 * 3600, took_s=2 * 3600 - 1)
    (study,) = read_status(store, made.study.study_name).studies
    assert study.trials_per_hour == pytest.approx(1, rel=0.05)


def test_the_outlook_is_in_words(store: Store, made: Made) -> None:
    name = made.study.study_name
    assert "waits for workers" in shown(store, name)
    set_stopped(made.study, True)
    assert "stopped" in shown(store, name)
    made.worker("alive")
    made.lease(made.trial("running", (0.25,)), "alive")
    assert "stopping" in shown(store, name)
    for _ in range(6):
        made.trial()
    made.study.tell(0, state=optuna.trial.TrialState.FAIL)
    assert "nothing left to do" in shown(store, name)
    (study,) = read_status(store, name).studies
    assert (study.trials_per_hour, study.left_s) == (None, None)


def test_without_a_name_each_study_has_a_line(store: Store, made: Made) -> None:
    made.trial()
    optuna.create_study(study_name=f"not ours {made.study.study_name}", storage=store.storage)
    lines = shown(store, None).splitlines()
    (line,) = [line for line in lines if line.startswith(made.study.study_name)]
    assert "1 of 6" in line
    assert "75.00%" in line
    assert not any(line.startswith("not ours") for line in lines)


@pytest.mark.parametrize("width", [80, 160])
def test_nothing_is_cut_off(store: Store, made: Made, width: int) -> None:
    made.worker("gpu-node-017.cluster.local:41234:ab12cd")
    made.lease(made.trial("running", (0.25,)), "gpu-node-017.cluster.local:41234:ab12cd")
    for name in (None, made.study.study_name):
        text = shown(store, name, width)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        for words in ("gpu-node-017", "H100", "working" if name is None else "25.00% at 0.124"):
            assert words in text


@pytest.mark.parametrize(
    ("name", "message"), [("nothing", "no study 'nothing'"), ("foreign", "not made by bnvit-study")]
)
def test_an_unknown_study_is_refused(store: Store, name: str, message: str) -> None:
    if name == "foreign":
        optuna.create_study(study_name=name, storage=store.storage, load_if_exists=True)
    with pytest.raises(UnknownStudyError, match=message):
        read_status(store, name)


def test_a_study_that_is_deleted_or_made_anew_meanwhile_is_noticed(
    store: Store, made: Made
) -> None:
    made.trial()
    name = made.study.study_name
    one, every = StatusReader(store, name), StatusReader(store, None)
    assert len(one.read().studies[0].seen.ended) == 1
    assert name in {study.seen.study for study in every.read().studies}
    optuna.delete_study(study_name=name, storage=store.storage)
    assert name not in {study.seen.study for study in every.read().studies}
    with pytest.raises(UnknownStudyError):
        one.read()
    make_study(store, name)
    assert len(one.read().studies[0].seen.ended) == 0


def test_a_study_of_another_version_hides_no_others(
    store: Store, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = optuna.create_study(
        study_name=f"{made.study.study_name}-theirs", storage=store.storage
    )
    theirs.set_user_attr(IDENTITY_KEY, {"schema_version": 99})
    try:
        reader = StatusReader(store, None)
        for _ in range(2):
            assert made.study.study_name in [study.seen.study for study in reader.read().studies]
        told = [line for line in caplog.text.splitlines() if f"'{theirs.study_name}'" in line]
        assert len(told) == 1, "it is said once"
        assert "schema 99" in told[0]
        assert made.study.study_name in [seen.study for seen in all_overviews(store)]
        with pytest.raises(VersionError):
            read_status(store, theirs.study_name)
    finally:
        optuna.delete_study(study_name=theirs.study_name, storage=store.storage)


def test_durations_are_in_the_unit_that_suits_them() -> None:
    assert [duration(seconds) for seconds in (-1, 45.4, 600, 10_000)] == [
        "0 s",
        "45 s",
        "10 min",
        "3 h",
    ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_watching_goes_on_while_the_store_is_away(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setattr(view, "REFRESH_S", 0.05)
    monkeypatch.setattr(view, "PRINT_S", 0.05)
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=120, height=50)
    stop = Stop()
    folder = data_dir / "postgres"
    with open_store(Settings(data_dir=data_dir)) as store:
        made = make_study(store, "watched")
        watcher = threading.Thread(target=watch_status, args=[store, None, console, stop])
        watcher.start()
        try:
            _await(output, "watched")
            os.kill(int((folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGINT)
            _await(output, "the store is away since")
            assert watcher.is_alive()
            with EmbeddedPostgres(folder):
                made.worker("newcomer")
                _await(output, "newcomer")
        finally:
            stop.request(signal.SIGINT)
            watcher.join(timeout=10)
        assert not watcher.is_alive()


def _await(output: io.StringIO, words: str) -> None:
    until_s = time.monotonic() + 20
    while words not in output.getvalue():
        assert time.monotonic() < until_s, output.getvalue()[-2000:]
        time.sleep(0.05)
