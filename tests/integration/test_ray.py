"""Workers that Ray places: on a cluster of several nodes on this machine, one of which is lost."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from sqlalchemy import func, select

from study.schema import leases, workers
from study.settings import Settings
from study.storage import Store, open_store
from study.studies import show_study
from tests.chaos.verdict import judge
from tests.integration.forks import Forked
from tests.integration.processes import STUDY, finish, start_run, until

if TYPE_CHECKING:
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

pytest.importorskip("ray")

Begin = Callable[[str], Forked]

LEASE_S = 40  # half of it must have passed since the server's start until trials are taken over
RUN = "--engine ray --pruner none"


@pytest.fixture(scope="module")
def cluster() -> "Iterator[Cluster]":
    """A head, and two nodes with room for a worker each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(wait=False, num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture
def settings(made_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BNVIT_LEASE_S", str(LEASE_S))
    return Settings(data_dir=made_dir, storage_url=None, mlflow_uri=None)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


@pytest.fixture
def run_line(settings: Settings) -> Iterator[Begin]:
    """Starts a command; one that has not ended is killed."""
    started: list[Forked] = []

    def begin(line: str) -> Forked:
        started.append(start_run(line, settings.data_dir))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def training(store: Store) -> list[psutil.Process]:
    """The processes of the workers that hold a trial."""
    held = select(workers.c.pid).join(leases, leases.c.worker == workers.c.name).distinct()
    with store.engine.connect() as connection:
        return [psutil.Process(pid) for pid in connection.scalars(held) if psutil.pid_exists(pid)]


def a_worker_that_trains(store: Store, *known: psutil.Process) -> psutil.Process:
    """The first one besides those that are known."""
    return until(lambda: set(training(store)) - set(known), 180).pop()


def name_of(store: Store, worker: psutil.Process) -> str:
    with store.engine.connect() as connection:
        named = select(workers.c.name).where(workers.c.pid == worker.pid)
        return str(connection.execute(named).scalar_one())


def holds(store: Store, name: str) -> bool:
    """Whether the worker has a trial that nobody else may take."""
    held = (leases.c.worker == name) & (leases.c.expires_at > func.now())
    with store.engine.connect() as connection:
        return bool(connection.scalar(select(func.count()).where(held)))


def node_of(cluster: "Cluster", worker: psutil.Process) -> "Node | None":
    """The node of Ray that the worker runs on, if both are still there."""
    with suppress(psutil.NoSuchProcess):
        above = {parent.pid for parent in worker.parents()}
        for node in cluster.worker_nodes:
            if node.all_processes["raylet"][0].process.pid in above:
                return node
    return None


def test_a_lost_node_loses_nothing(
    cluster: "Cluster", settings: Settings, store: Store, run_line: Begin
) -> None:
    run = run_line(
        f"{RUN} --trials 3 --epochs 5 --workers 3 --json --ray-address {cluster.address}"
    )
    first = a_worker_that_trains(store)
    first.suspend()  # so that it does until the other one does
    second = a_worker_that_trains(store, first)
    second.suspend()  # so that it leaves the others something
    first.resume()
    name = name_of(store, first)
    lost = node_of(cluster, first)
    assert lost is not None
    assert lost is not node_of(cluster, second)
    assert holds(store, name)
    cluster.remove_node(lost, allow_graceful=False)
    until(lambda: not holds(store, name), LEASE_S / 2)
    new = cluster.add_node(num_cpus=1)
    third = a_worker_that_trains(store, first, second)
    assert node_of(cluster, third) is new
    second.resume()
    code, out, said = finish(run)
    assert code == 0, said
    assert "Ray has room for 2 of 3" in said
    assert said.count("Ray lost a worker on") == 1
    assert json.loads(out)["study"] == STUDY, "what Ray says of a lost node is not in it"
    assert not any(worker.is_running() for worker in (first, second, third))
    shown = show_study(store, STUDY)
    assert len(shown.counted) == len(shown.ended) == 3
    assert any(row.attempt == 2 for row in shown.trials)
    tracked = settings.model_copy(update={"mlflow_uri": store.mlflow_url})
    assert judge(tracked, [], STUDY, 3).faults == {}


def test_sigterm_puts_trials_back_and_ends_a_ray_of_its_own(store: Store, run_line: Begin) -> None:
    run = run_line(f"{RUN} --trials 1 --epochs 2000 --mlflow none --ray-address local --workers 1")
    worker = a_worker_that_trains(store)
    family = psutil.Process(run.pid).children(recursive=True)
    assert worker in family
    assert {"raylet", "gcs_server"} <= {process.name() for process in family}
    run.send_signal(signal.SIGTERM)
    code, _, said = finish(run)
    assert code == 128 + signal.SIGTERM, said
    assert "killed" not in said
    assert set(show_study(store, STUDY).outcomes) == {"waiting"}
    until(lambda: not any(process.is_running() for process in family))
