"""Metrics of real workers, scraped over HTTP while they train."""

import json
import signal
import time
from collections.abc import Iterator

import pytest

from tests.chaos.stage import LEASE_S, WORKER, Stage, new_stage, run_line
from tests.integration.processes import steady_port, until
from tests.scraping import Scrape, scrape

EPOCHS = 6  # a trial of a second


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with new_stage(has_mlflow_server=False) as made:
        yield made


def told(stage: Stage, line: str) -> str:
    """What `bnvit-study LINE` prints."""
    node = stage.node(line.split()[0], line)
    node.start()
    until(lambda: not node.is_alive)
    assert node.exit_code == 0
    return node.log.read_text()


def amid_a_trial(seen: Scrape) -> Scrape | None:
    """What was seen, if a trial was under way then."""
    is_training = seen.value("bnvit_worker_training") == 1
    return seen if is_training and seen.value("bnvit_images_trained_total") > 0 else None


def test_what_a_worker_says_while_it_trains_agrees_with_show_at_the_end(stage: Stage) -> None:
    port = steady_port()
    run = stage.node("run", run_line("study", 3, EPOCHS))
    worker = stage.node("worker", f"{WORKER} --metrics-port {port}")  # stays when all is done
    run.start()
    worker.start()
    amid = until(lambda: amid_a_trial(scrape(port)))
    assert amid.value("bnvit_lease_age_seconds", study="study") < LEASE_S
    assert time.time() - amid.value("bnvit_last_beat_timestamp_seconds") < LEASE_S
    assert 0 <= time.time() - amid.value("bnvit_last_progress_timestamp_seconds") < 10
    assert worker.process is not None
    assert amid.worker_pid == worker.process.pid
    until(lambda: scrape(port).value("bnvit_trials_ended_total") == 3)
    until(lambda: scrape(port).value("bnvit_spool_records") == 0)

    end = scrape(port)
    shown = json.loads(told(stage, "show study --json"))
    for outcome, count in shown["outcomes"].items():
        assert end.value("bnvit_trials_ended_total", study="study", outcome=outcome) == count
    images = sum(trial["images_seen"] for trial in shown["trials"])
    assert end.value("bnvit_images_trained_total", study="study") == images
    assert end.value("bnvit_trial_duration_seconds_count", study="study") == 3
    assert 0 < end.value("bnvit_trial_duration_seconds_sum") < 60
    assert end.value("bnvit_worker_training") == end.value("bnvit_mlflow_lag_seconds") == 0
    assert not end.has("bnvit_lease_age_seconds")
    worker.kill(signal.SIGTERM)
    until(lambda: not worker.is_alive)
    assert worker.exit_code == 0
    assert scrape(port).text == ""
