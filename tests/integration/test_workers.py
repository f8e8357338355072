"""Workers on nodes of their own: killed, frozen, stopped and cut off."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import psutil
import pytest
from sqlalchemy import select

from study.schema import workers
from study.storage import Store, open_store
from study.studies import find_study, set_stopped, show_study
from tests.chaos.nodes import Node
from tests.chaos.stage import WORKER, Stage, new_stage, run_line
from tests.chaos.verdict import Verdict, judge
from tests.integration.forks import PAUSE_VARIABLE
from tests.integration.processes import steady_port, until
from tests.scraping import scrape

STUDY = "study"
LONG = 4  # epochs: a trial that lasts until something happens to it …
PAUSED = {PAUSE_VARIABLE: "0.05"}  # … with this before each step


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with new_stage(has_mlflow_server=False) as made:
        yield made


@pytest.fixture
def study(stage: Stage, store: Store, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for the test's study; what the test started is killed and signed off."""
    yield request.node.name.removeprefix("test_")
    for node in stage.nodes:
        node.kill(signal.SIGCONT)
        node.kill()
    stage.nodes.clear()
    with store.engine.begin() as connection:
        connection.execute(workers.delete())


@pytest.fixture(scope="module")
def store(stage: Stage) -> Iterator[Store]:
    with open_store(stage.settings) as opened:
        yield opened


def create(stage: Stage, study: str, trials: int, epochs: int, more: str = "") -> Node:
    """Start `run`, which creates the study and looks after it, and wait until it has."""
    coordinator = stage.node(f"{study}-run", run_line(study, trials, epochs, more))
    coordinator.environment = {**coordinator.environment, **PAUSED}  # for workers of its own
    coordinator.start()
    until(lambda: coordinator.log.exists() and "workers:" in coordinator.log.read_text())
    return coordinator


def join(stage: Stage, name: str, study: str, more: str = "", **environment: str) -> Node:
    """Start a worker of the study on a node of its own."""
    node = stage.node(f"{study}-{name}", f"{WORKER} {more} {study}")
    node.environment = {**node.environment, **PAUSED, **environment}
    node.start()
    return node


def is_at(store: Store, study: str, attempt: int) -> bool:
    return show_study(store, study).trials[0].attempt == attempt


def waits(node: Node) -> bool:
    """Whether it has found nothing to do."""
    return node.log.exists() and "no trial to train" in node.log.read_text()


def finish(node: Node, timeout_s: float = 60) -> tuple[int | None, str]:
    """Wait for its end; the exit code and what it has said."""
    until(lambda: not node.is_alive, timeout_s)
    return node.exit_code, node.log.read_text()


def verdict(stage: Stage, study: str, trials: int) -> Verdict:
    spools = [stage.settings.model_copy(update={"data_dir": n.folder}) for n in stage.nodes]
    return judge(stage.settings, spools, study, trials)


def has_rungs(store: Store, study: str, rungs: int) -> bool:
    return any(len(row.rungs) >= rungs for row in show_study(store, study).trials)


def test_sigterm_puts_the_trial_back_and_another_node_goes_on(
    stage: Stage, store: Store, study: str
) -> None:
    run = create(stage, study, 1, LONG)
    first = join(stage, "first", study)
    until(lambda: has_rungs(store, study, 2))
    asked_s = time.monotonic()
    first.kill(signal.SIGTERM)
    code, said = finish(first, 10)
    assert code == 0, said
    assert time.monotonic() - asked_s < 10
    assert show_study(store, study).trials[0].outcome == "waiting"
    second = join(stage, "second", study)
    code, said = finish(second)
    assert code == 0, said
    assert "goes on from" in said  # the first one's checkpoint, from the shared folder
    assert finish(run)[0] == 0
    assert verdict(stage, study, 1).faults == {}


def test_the_last_trial_of_a_killed_worker_is_taken_up_by_one_that_waits(
    stage: Stage, store: Store, study: str
) -> None:
    run = create(stage, study, 1, LONG)
    first = join(stage, "first", study)
    until(lambda: has_rungs(store, study, 2))
    first.kill(signal.SIGSTOP)
    second = join(stage, "second", study)
    until(lambda: waits(second) or is_at(store, study, 2))  # unless it was slow to start
    first.kill()
    code, said = finish(second)
    assert code == 0, said
    assert finish(run)[0] == 0
    assert show_study(store, study).trials[0].attempt == 2
    assert verdict(stage, study, 1).faults == {}


@pytest.mark.parametrize("wakes", ["while_the_other_trains", "when_all_is_over"])
def test_frozen(stage: Stage, store: Store, study: str, wakes: str) -> None:
    """A worker frozen past its lease and woken changes nothing that another has taken over."""
    study = study.replace("[", "-").replace("]", "")
    run = create(stage, study, 1, LONG)
    first = join(stage, "first", study)
    until(lambda: has_rungs(store, study, 2))
    first.kill(signal.SIGSTOP)
    second = join(stage, "second", study)
    until(partial(is_at, store, study, 2))
    if wakes == "while_the_other_trains":
        first.kill(signal.SIGCONT)
    assert finish(second)[0] == 0
    first.kill(signal.SIGCONT)
    code, said = finish(first)
    assert code == 0, said
    assert "taken over by another worker" in said
    assert finish(run)[0] == 0
    assert verdict(stage, study, 1).faults == {}


def test_a_trial_that_kills_three_workers_is_replaced(
    stage: Stage, store: Store, study: str
) -> None:
    run = create(stage, study, 1, 1, "--set dim=128 --set depth=8 --batch-size 20:20")
    for attempt, name in enumerate(("first", "second", "third"), start=1):
        node = join(stage, name, study)
        until(partial(is_at, store, study, attempt))
        node.kill()
        assert not has_rungs(store, study, 1)
    last = join(stage, "last", study)
    code, said = finish(last)
    assert code == 0, said
    assert finish(run)[0] == 0
    failed, ended = show_study(store, study).trials
    assert failed.outcome == "failed"
    assert "3 workers in a row died" in str(failed.reason)
    assert ended.outcome == "complete"
    assert verdict(stage, study, 1).faults == {}


def test_an_outage_beyond_patience_is_a_clean_end(stage: Stage, store: Store, study: str) -> None:
    run = create(stage, study, 1, LONG)
    node = join(stage, "worker", study, BNVIT_STORE_PATIENCE_S="3")
    until(lambda: has_rungs(store, study, 2))
    stage.network.freeze()
    code, said = finish(node, 90)
    stage.network.thaw()
    assert code == 1
    last = said.splitlines()[-1]
    assert "the store has been away for" in last
    assert "Traceback" not in said
    assert finish(join(stage, "second", study))[0] == 0
    assert finish(run)[0] == 0
    assert verdict(stage, study, 1).faults == {}


def test_a_worker_cut_off_in_mid_trial_leaves_when_patience_is_over(
    stage: Stage, store: Store, study: str
) -> None:
    create(stage, study, 1, 100 * LONG)
    node = join(stage, "worker", study, BNVIT_STORE_PATIENCE_S="3")
    until(lambda: has_rungs(store, study, 2))
    stage.network.freeze()
    frozen_at_s = time.time()
    code, said = finish(node, 60)
    stage.network.thaw()
    set_stopped(find_study(store, study), True)  # nobody is to go on with so long a trial
    assert code == 1
    assert "no sign of life got through" in said.splitlines()[-1]
    saved_at_s = max(file.stat().st_mtime for file in node.folder.rglob("checkpoints/**/*.pt"))
    assert saved_at_s > frozen_at_s + 3, "it has saved the trial when its patience was over"


def test_a_local_worker_that_starts_while_the_store_is_away_waits_for_it(
    stage: Stage, study: str
) -> None:
    run = create(stage, study, 1, 1)
    stage.network.freeze()
    folder = stage.folder / f"{study}-worker"
    folder.mkdir()
    words = [*WORKER.split(), "--of-parent", str(os.getpid()), study]
    worker = subprocess.Popen(
        [sys.executable, "-m", "study.entry", *words],
        env={**os.environ, **stage.environment(), "BNVIT_DATA_DIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    assert "the store is away" in worker.stderr.readline()
    stage.network.thaw()
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0, said
    assert "the store is back" in said
    code, said = finish(run)
    assert code == 0, said
    assert verdict(stage, study, 1).faults == {}


def test_sigterm_while_the_store_is_away_is_an_orderly_end(
    stage: Stage, store: Store, study: str
) -> None:
    run = create(stage, study, 1, 3 * LONG)
    first = join(stage, "first", study)
    until(lambda: has_rungs(store, study, 2))
    stage.network.freeze()
    time.sleep(1)
    asked_s = time.monotonic()
    first.kill(signal.SIGTERM)
    code, said = finish(first)
    took_s = time.monotonic() - asked_s
    stage.network.thaw()
    assert code == 0, said
    assert took_s < 10
    assert "waits again when its lease has run out" in said
    assert finish(join(stage, "second", study))[0] == 0
    assert finish(run)[0] == 0
    assert verdict(stage, study, 1).faults == {}


def test_training_goes_on_while_the_store_is_away(stage: Stage, store: Store, study: str) -> None:
    run = create(stage, study, 1, LONG)
    node = join(stage, "worker", study)
    until(lambda: has_rungs(store, study, 1))
    stage.network.cut()
    stage.network.freeze()
    time.sleep(10)
    stage.network.thaw()
    code, said = finish(node)
    assert code == 0, said
    assert finish(run)[0] == 0
    assert show_study(store, study).trials[0].attempt == 1
    assert verdict(stage, study, 1).faults == {}


def test_workers_sign_on_and_off_and_leave_when_told(
    stage: Stage, store: Store, study: str
) -> None:
    create(stage, study, 50, 1)
    node = join(stage, "worker", study, "--max-trials 2")
    code, said = finish(node)
    assert code == 0, said
    assert "leaves after 2 trials" in said
    with store.engine.connect() as connection:
        signed_on = connection.execute(select(workers.c.name)).scalars().all()
    assert not [name for name in signed_on if name in said]
    assert len(show_study(store, study).ended) == 2
    set_stopped(find_study(store, study), True)  # so that nobody serves it from now on


def test_without_a_study_the_oldest_is_served_first(stage: Stage, store: Store, study: str) -> None:
    runs = [create(stage, f"{study}-{age}", 2, 1) for age in ("old", "new")]
    node = stage.node(f"{study}-worker", f"{WORKER} --idle-exit 2")
    node.start()
    code, said = finish(node)
    assert code == 0, said
    assert [finish(run)[0] for run in runs] == [0, 0]
    ends = [
        [row.finished for row in show_study(store, f"{study}-{age}").trials if row.finished]
        for age in ("old", "new")
    ]
    assert max(ends[0]) < min(ends[1])


def test_a_stopped_study_is_left_after_the_current_trials(
    stage: Stage, store: Store, study: str
) -> None:
    run = create(stage, study, 60, 2)
    node = join(stage, "worker", study)
    until(lambda: has_rungs(store, study, 1))
    stop = stage.node(f"{study}-stop", f"stop {study}")
    stop.start()
    assert finish(stop)[0] == 0
    assert finish(node)[0] == 0
    assert finish(run)[0] == 0
    seen = show_study(store, study)
    assert 0 < len(seen.ended) < 60
    assert "running" not in seen.outcomes


def local_workers(store: Store) -> list[int]:
    """Process ids of the workers that are signed on."""
    with store.engine.connect() as connection:
        return list(connection.scalars(select(workers.c.pid).order_by(workers.c.started_at)))


def test_run_replaces_a_worker_that_dies(stage: Stage, store: Store, study: str) -> None:
    first = steady_port(2)
    ports = (first, first + 1)
    run = create(stage, study, 2, LONG, f"--workers 2 --pruner none --metrics-port {first}")
    until(lambda: has_rungs(store, study, 2) and all(scrape(port).worker_pid for port in ports))
    dying, staying = (scrape(port).worker_pid for port in ports)
    os.kill(staying, signal.SIGSTOP)  # so that the study does not end before the other is replaced
    os.kill(dying, signal.SIGKILL)
    until(lambda: scrape(first).worker_pid not in (0, dying))  # its metrics are where they were
    os.kill(staying, signal.SIGCONT)
    code, said = finish(run, 120)
    assert code == 0, said
    assert "a worker died (SIGKILL); another takes its place" in said
    assert any(row.attempt == 2 for row in show_study(store, study).trials)
    assert local_workers(store) == []
    assert verdict(stage, study, 2).faults == {}


def test_local_workers_leave_with_their_run(stage: Stage, store: Store, study: str) -> None:
    run = create(stage, study, 6, 100 * LONG, "--workers 1")
    until(lambda: has_rungs(store, study, 1))
    (pid,) = local_workers(store)
    run.kill()
    until(lambda: not psutil.pid_exists(pid))
    assert "running" not in show_study(store, study).outcomes


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs Debian's faketime")
def test_a_node_whose_clock_is_off_is_told_and_works(stage: Stage, study: str) -> None:
    run = create(stage, study, 1, 1)
    environment = {**os.environ, **stage.environment()}
    environment["BNVIT_DATA_DIR"] = str(stage.folder / f"{study}-off")
    # As on a real node, what waits for a moment waits no longer for it.
    faketime = ["faketime", "--exclude-monotonic", "-f", "+180s"]
    command = [*faketime, sys.executable, "-m", "study.entry"]
    ended = subprocess.run(
        [*command, *WORKER.split(), study], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "this node's clock is 180 s ahead of the store's" in ended.stderr
    assert finish(run)[0] == 0
    assert verdict(stage, study, 1).faults == {}


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("worker nowhere", "no study 'nowhere'"),
        ("worker --storage mysql://me:secret@host/db", "scheme 'mysql' is not supported"),
        ("worker --storage postgresql://me:secret@127.0.0.1:9/db", "cannot be reached"),
        ("worker --device quantum", "unknown device 'quantum'"),
        ("worker --checkpoints nowhere://bucket", "unknown scheme"),
        ("worker --max-trials 0", "--max-trials"),
        ("status nowhere", "no study 'nowhere'"),
        ("stop nowhere", "no study 'nowhere'"),
        ("delete nowhere --yes", "no study 'nowhere'"),
        ("export nowhere", "no study 'nowhere'"),
    ],
)
def test_bad_input_is_one_line(stage: Stage, study: str, line: str, part: str) -> None:
    assert study
    node = stage.node("bad-input", line)
    code, said = finish_alone(node)
    assert code not in (0, None)
    (told,) = [line for line in said.splitlines() if line.startswith("bnvit-study: ")]
    assert part in told
    assert "secret" not in said
    assert "Traceback" not in said


def finish_alone(node: Node) -> tuple[int | None, str]:
    """Start it on a fresh log and wait for its end."""
    node.log.unlink(missing_ok=True)
    node.start()
    return finish(node)
