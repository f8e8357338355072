"""Workers by Ray: what cannot be asked for, where they fit, and what they must be able to reach."""

import importlib.util
import shlex
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import InputError
from study import entry
from study.crew import Berth
from study.ray_cluster import ClusterNode, View
from study.ray_places import berths_on, check_reach, only_here, room
from study.request import Request
from study.settings import Settings

HERE = ClusterNode("10.0.0.1", "here", cpus=4, gpus=0)
OTHER = ClusterNode("10.0.0.2", "other", cpus=8, gpus=0)
GPUS = ClusterNode("10.0.0.3", "gpus", cpus=16, gpus=2)
RAY = Request(model="vit", engine="ray")
UNKNOWN = Request(model="vit", engine="dask")  # type: ignore[arg-type]


def view(*nodes: ClusterNode) -> View:
    """A cluster where nobody else works."""
    free = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return View(list(nodes), nodes[0], *free, is_ours=False)


def settings(storage_url: str | None = None, mlflow_uri: str | None = None) -> Settings:
    return Settings(data_dir=Path("data"), storage_url=storage_url, mlflow_uri=mlflow_uri)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (UNKNOWN, "unknown engine 'dask'; known: local, ray"),
        (Request(model="vit", ray_address="local"), "--ray-address is about Ray; add --engine ray"),
        (Request(model="vit", gpus_per_worker=0.5), "--gpus-per-worker is about Ray"),
        (replace(RAY, gpus_per_worker=0.0), "must be above 0 and at most 1"),
        (replace(RAY, gpus_per_worker=2.0), "must be above 0 and at most 1"),
        (replace(RAY, gpus_per_worker=float("nan")), "must be above 0 and at most 1"),
        (replace(RAY, gpus_per_worker=0.5, device="cpu"), "is about GPUs"),
        (replace(RAY, workers_per_gpu=4), "with Ray say --gpus-per-worker 0.25"),
        (replace(RAY, workers="auto"), "give a number"),
        (replace(RAY, workers=0), "leave out --engine ray"),
        (replace(RAY, device="cuda:1"), "which GPU a worker gets is Ray's choice"),
        (replace(RAY, ray_address="ray://10.0.0.1:10001"), "a Ray Client"),
        (replace(RAY, ray_address="10.0.0.1"), "must be HOST:PORT"),
    ],
)
def test_what_does_not_go_together_is_refused(
    request_: Request, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    with pytest.raises(InputError, match=told.replace("(", r"\(").replace("?", r"\?")):
        request_.check()


def test_without_ray_how_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'bnvit-study\[ray\]'"):
        RAY.check()


def test_the_command_says_the_engine_again() -> None:
    asked = replace(RAY, ray_address="10.0.0.1:6379", gpus_per_worker=0.25)
    told = "--engine ray --ray-address 10.0.0.1:6379 --gpus-per-worker 0.25"
    assert told in asked.command()


def test_by_default_there_are_as_many_as_fit() -> None:
    assert berths_on(view(HERE, OTHER), RAY) == [Berth("cpu", 1)] * 12
    assert berths_on(view(HERE, GPUS), RAY) == [Berth("cuda", 8)] * 2
    shared = berths_on(view(HERE, GPUS), replace(RAY, gpus_per_worker=0.25))
    assert shared == [Berth("cuda", 2, memory_share=0.25)] * 8
    assert len(berths_on(view(GPUS), replace(RAY, gpus_per_worker=0.1))) == 16, "one CPU each"
    assert berths_on(view(HERE, GPUS), replace(RAY, device="cpu")) == [Berth("cpu", 1)] * 20
    assert len(berths_on(view(HERE), replace(RAY, workers=7))) == 7, "the others wait"


def test_others_leave_less_room() -> None:
    assert room(replace(view(HERE, OTHER), free_cpus=5.0), None) == 5
    assert room(replace(view(GPUS), free_gpus=0.5), 0.25) == 2
    assert room(replace(view(HERE), free_cpus=0.0), None) == 1, "which waits"


def test_devices_that_a_cluster_has_not_are_refused() -> None:
    with pytest.raises(InputError, match="has no GPUs; leave out --gpus-per-worker"):
        berths_on(view(HERE), replace(RAY, gpus_per_worker=0.5))
    with pytest.raises(InputError, match="has no GPUs; leave out --device cuda"):
        berths_on(view(HERE), replace(RAY, device="cuda"))
    with pytest.raises(InputError, match="no CPU"):
        berths_on(view(replace(HERE, cpus=0.0)), RAY)


def test_workers_elsewhere_must_reach_store_and_mlflow() -> None:
    far = "postgresql://u:p@db/optuna"
    several = view(HERE, OTHER)
    with pytest.raises(InputError, match=r"has 2 machines.* set BNVIT_STORAGE_URL to a Postgres"):
        check_reach(several, settings())
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI to an MLflow server"):
        check_reach(several, settings(far, "sqlite:///mlflow.db"))
    check_reach(several, settings(far))
    check_reach(view(HERE, HERE), settings())
    assert only_here(settings("postgresql://u:p@127.0.0.1/optuna")) == "BNVIT_STORAGE_URL"
    assert only_here(settings("postgresql://u:p@/optuna?host=/run")) == "BNVIT_STORAGE_URL"
    assert only_here(settings(far, "http://localhost:5000")) == "MLFLOW_TRACKING_URI"
    assert only_here(settings(far, "none")) is None
    assert only_here(settings(far, "http://mlflow:5000")) is None


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a server that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("by", ["option", "variable"])
def test_where_no_cluster_answers_that_is_said_and_nothing_is_made(
    by: str,
    deaf: str,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("BNVIT_DATA_DIR", str(data_dir))
    monkeypatch.delenv("BNVIT_STORAGE_URL", raising=False)
    line = "bnvit-study run --model vit --engine ray"
    if by == "option":
        line += f" --ray-address {deaf}"
    else:
        monkeypatch.setenv("RAY_ADDRESS", deaf)
    monkeypatch.setattr("sys.argv", shlex.split(line))
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(f"bnvit-study: no Ray cluster answers at {deaf}; start one with")
    assert told.count("\n") == 1
    assert not list(data_dir.iterdir())


def test_a_cluster_that_asks_for_a_token_is_told_in_one_clear_line() -> None:
    connection = pytest.importorskip("study.ray_connection")
    reason = (
        "Failed to connect to GCS. Last connection error: Traceback (most recent call last):\n"
        "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: Authentication token is "
        "missing or incorrect."
    )
    told = connection._refused("head:6379", reason)
    assert told.startswith("the Ray cluster at head:6379 asks for its token; set RAY_AUTH_MODE")
    assert "\n" not in told
