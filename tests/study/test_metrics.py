"""What a worker tells Prometheus, and where."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from models.errors import InputError
from study.attempt import Hands
from study.beat import Beat
from study.crew import Berth, _with_ports
from study.docket import Docket
from study.errors import MetricsError
from study.metrics import WorkerCollector, spool_metrics, worker_metrics
from study.metrics_server import check_ports, serving
from study.patience import Patience
from study.ports import holder_of
from study.request import Request
from study.service import Session, open_session
from study.settings import Settings
from study.spool import Spool
from study.stop import Stop
from study.storage import Store
from study.studies import show_study
from study.worker import Limits, work
from study.workplace import workplace
from tests.integration.processes import steady_port, until
from tests.scraping import Scrape, scrape, scrape_of
from tests.study.test_beat import WORKER
from tests.study.test_cli import Command
from tests.study.test_spool import a_line

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yml"
RULES_TEST = ROOT / "deploy/prometheus/alerts_test.yml"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs Debian's prometheus")


@pytest.fixture
def session(settings: Settings, small: Request) -> Iterator[Session]:
    asked = replace(small, trials=2, epochs=8, pruner="none")
    with open_session(asked, settings, lambda _: None) as opened:
        yield opened


def train(session: Session, meanwhile: Callable[[Hands], None]) -> Scrape:
    """Train the study as a worker does, `meanwhile` in a thread; what is scraped at the end."""
    place = (session.store, session.settings, session.device)
    with workplace(*place, Patience(60, Stop())) as hands:
        docket = Docket(*place, [session.study.study_name])
        watcher = threading.Thread(target=meanwhile, args=[hands])
        watcher.start()
        try:
            work(docket, hands, Limits())
        finally:
            docket.close()
            watcher.join()
        return scrape_of(WorkerCollector(hands))


def stop_in_mid_trial(hands: Hands) -> None:
    held = WorkerCollector(hands)
    until(lambda: scrape_of(held).value("bnvit_images_trained_total") > 0)
    hands.stop.request(15)


def test_a_trial_that_two_workers_trained_is_counted_where_it_was_and_ended_once(
    session: Session,
) -> None:
    first = train(session, stop_in_mid_trial)
    assert first.value("bnvit_trials_ended_total") == 0
    assert first.value("bnvit_worker_training") == 0
    images = first.value("bnvit_images_trained_total")
    assert images > 0

    second = train(session, lambda _: None)
    seen = show_study(session.store, session.study.study_name)
    assert {row.attempt for row in seen.trials} == {1, 2}
    total = images + second.value("bnvit_images_trained_total")
    assert total == sum(row.images_seen for row in seen.trials)
    for outcome, count in seen.outcomes.items():
        assert second.value("bnvit_trials_ended_total", outcome=outcome) == count
    assert second.value("bnvit_trial_duration_seconds_count") == len(seen.ended) == 2
    assert second.value("bnvit_trial_duration_seconds_bucket", le="+Inf") == 2


def paced(seen: Scrape) -> Scrape | None:
    """What was seen, if it has a pace."""
    return seen if seen.has("bnvit_images_per_second") else None


def test_while_a_trial_is_held_its_progress_lease_and_pace_are_told(session: Session) -> None:
    found: list[Scrape] = []

    def look(hands: Hands) -> None:
        held = WorkerCollector(hands)
        found.append(until(lambda: paced(scrape_of(held))))

    end = train(session, look)
    (amid,) = found
    name = session.study.study_name
    assert amid.value("bnvit_worker_training") == 1
    assert 0 <= amid.value("bnvit_lease_age_seconds", study=name) < session.store.lease_s
    assert 0 <= time.time() - amid.value("bnvit_last_progress_timestamp_seconds", study=name) < 60
    assert amid.value("bnvit_images_per_second", study=name) > 0
    for metric in ("last_progress_timestamp_seconds", "lease_age_seconds", "images_per_second"):
        assert not end.has(f"bnvit_{metric}")


class Told(Collector):
    """Metrics that a function reads."""

    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self.read = read

    def collect(self) -> Iterator[Metric]:
        return self.read()


def test_what_waits_for_mlflow_is_told_with_its_size_and_its_age(tmp_path: Path) -> None:
    def told(name: str) -> float:
        return scrape_of(Told(lambda: spool_metrics(spool))).value(name)

    with Spool(tmp_path, "worker") as spool:
        assert told("bnvit_spool_records") == told("bnvit_mlflow_lag_seconds") == 0
        for age_s in (100, 50):
            spool.append(replace(a_line(), at_ms=int((time.time() - age_s) * 1000)))
        assert told("bnvit_spool_records") == 2
        assert told("bnvit_spool_bytes") == spool.path.stat().st_size
        assert 100 <= told("bnvit_mlflow_lag_seconds") < 110
        first = spool.head()
        assert first is not None
        spool.done(first)
        assert told("bnvit_spool_records") == 1
        assert told("bnvit_spool_bytes") == spool.path.stat().st_size - len(first.raw)
        assert 50 <= told("bnvit_mlflow_lag_seconds") < 60
        last = spool.head()
        assert last is not None
        spool.done(last)
        assert told("bnvit_spool_bytes") == told("bnvit_mlflow_lag_seconds") == 0


def test_how_long_the_store_has_been_away_is_told(store: Store) -> None:
    def told(name: str) -> float:
        return scrape_of(Told(lambda: worker_metrics(beat, None))).value(name)

    with Beat(replace(store, lease_s=1.2), WORKER) as beat:
        assert told("bnvit_store_away_seconds") == 0
        last = told("bnvit_last_beat_timestamp_seconds")
        beat.note_outage()
        assert told("bnvit_store_away_seconds") > 0
        until(lambda: told("bnvit_store_away_seconds") == 0)
        assert last < told("bnvit_last_beat_timestamp_seconds") <= time.time()


# Where they are served.


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of the loopback that this process listens on; the one before it is free."""
    with socket.create_server(("127.0.0.1", steady_port(2) + 1)) as server:
        yield server.getsockname()[1]


def on(settings: Settings, port: int, host: str = "127.0.0.1") -> Settings:
    return settings.model_copy(update={"metrics_port": port, "metrics_host": host})


TITLED = """
import socket, sys
from setproctitle import setproctitle
setproctitle("bnvit-study worker --of-parent 1 --name me -- a-study")
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""


def test_a_local_worker_that_has_a_port_is_named_without_its_options() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TITLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert holder_of(port) == f"bnvit-study worker (process {process.pid}) has it"
        process.communicate()


def test_metrics_are_served_as_soon_as_there_is_a_worker(session: Session) -> None:
    port = steady_port()
    with serving(on(session.settings, port), is_alone=True) as show:
        assert scrape(port).types == {}
        place = (session.store, session.settings, session.device)
        with workplace(*place, Patience(60, Stop()), "me") as hands:
            show(hands)
            assert scrape(port).label("bnvit_worker_info", "worker") == "me"
            assert scrape(port).types == documented()
    assert scrape(port).text == ""


def test_a_port_that_is_taken_is_refused_naming_who_has_it(taken: int, settings: Settings) -> None:
    holder = rf".* \(process {os.getpid()}\) has it"
    said = f"port {taken} of 127.0.0.1: {holder}; choose another with --metrics-port"
    with pytest.raises(MetricsError, match=said):
        check_ports(on(settings, taken - 1), 2)
    with pytest.raises(MetricsError, match=said), serving(on(settings, taken), is_alone=True):
        pass


def test_a_worker_of_a_run_trains_without_metrics_if_its_port_is_taken(
    taken: int, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    place = (session.store, session.settings, session.device)
    with (
        serving(on(session.settings, taken), is_alone=False) as show,
        workplace(*place, Patience(60, Stop())) as hands,
    ):
        show(hands)
    assert f"port {taken}" in caplog.text
    assert "this worker trains without" in caplog.text


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
def test_an_address_that_is_not_this_nodes_is_refused(settings: Settings, host: str) -> None:
    with pytest.raises(MetricsError, match=f"of {host}: "):
        check_ports(on(settings, steady_port(), host), 1)


def test_each_local_worker_has_a_port_of_its_own(settings: Settings) -> None:
    check_ports(settings, 5)  # none was asked for
    check_ports(on(settings, 65_535), 0)
    with pytest.raises(InputError, match="would take 65530 to 65536; choose one up to 65529"):
        check_ports(on(settings, 65_530), 7)
    places = [Berth("cpu", 1)] * 3
    assert [place.metrics_port for place in _with_ports(places, 9480)] == [9480, 9481, 9482]
    assert _with_ports(places, None) == places


@pytest.fixture
def bnvit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path
) -> Command:
    return Command(monkeypatch, capsys, data_dir)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("worker --metrics-port {taken}", 1, "(process {me}) has it"),
        ("run --model vit --metrics-port {taken}", 1, "(process {me}) has it"),
        ("worker --metrics-port 0", 2, "greater than or equal to 1"),
        ("run --model vit --metrics-port 65536", 2, "less than or equal to 65535"),
        ("run --model vit --workers 9 --metrics-port 65530", 2, "too few ports for 9 local"),
        ("run --model vit --workers 0 --metrics-port 9480", 2, "--workers 0 starts none"),
        ("worker --metrics-host 0.0.0.0", 2, "--metrics-host says where --metrics-port is"),
        ("worker --metrics-port 9480 --metrics-host ''", 2, "at least 1 character"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_nothing_is_started(
    bnvit: Command, data_dir: Path, taken: int, line: str, code: int, said: str
) -> None:
    ended, out, err = bnvit(line.format(taken=taken))
    assert (ended, out) == (code, "")
    assert said.format(me=os.getpid()) in err
    assert len(err.splitlines()) == 1
    assert list(data_dir.iterdir()) == []


def test_a_variable_sets_the_port_too(
    bnvit: Command, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNVIT_METRICS_PORT", str(taken))
    assert f"port {taken}" in bnvit("worker")[2]
    monkeypatch.setenv("BNVIT_METRICS_PORT", "70000")
    assert "BNVIT_METRICS_PORT is '70000'" in bnvit("worker")[2]


def test_the_command_that_goes_on_serves_metrics_again() -> None:
    asked = Request(model="vit", metrics_port=9480, metrics_host="0.0.0.0")
    assert asked.command().endswith("--metrics-port 9480 --metrics-host 0.0.0.0")


# What is made of them.


def documented() -> dict[str, str]:
    """Name and type of each metric in the table of docs/monitoring.md."""
    text = (ROOT / "docs/monitoring.md").read_text()
    rows = re.findall(r"^\| `(bnvit_\w+)` \| (\w+) \|", text, re.MULTILINE)
    return dict(rows)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def test_the_rules_speak_of_metrics_that_a_worker_exports() -> None:
    for rule in rules():
        named = set(re.findall(r"bnvit_\w+", rule["expr"]))
        assert named
        assert named <= set(documented())  # which are those that a worker exports
        assert rule["alert"] in (ROOT / "docs/monitoring.md").read_text()


@needs_promtool
def test_the_rules_fire_when_they_should_and_at_no_other_time() -> None:
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(RULES_TEST)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    config = RULES.with_name("prometheus.yml")
    subprocess.run([str(PROMTOOL), "check", "config", str(config)], check=True)


@needs_promtool
def test_the_metrics_follow_prometheus_conventions(session: Session) -> None:
    place = (session.store, session.settings, session.device)
    with workplace(*place, Patience(60, Stop())) as hands:
        text = scrape_of(WorkerCollector(hands)).text
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
