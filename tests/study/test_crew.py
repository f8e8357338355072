"""Where local workers run."""

from pathlib import Path

import pytest
import torch

from objectives.hardware import memory_bytes
from study import crew
from study.crew import Berth, berths
from study.request import Request
from study.service import _notes
from tests.conftest import CPU

CUDA = torch.device("cuda")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as far as can be told without one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)


def test_threads_are_divided_among_workers_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert berths(CPU, None, 1) == [Berth("cpu", 8)]
    assert berths(CPU, 3, 1) == [Berth("cpu", 2)] * 3
    assert berths(CPU, 20, 1)[0].threads == 1
    assert berths(CPU, 0, 1) == []


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_gets_a_worker() -> None:
    assert berths(CUDA, None, 1) == [Berth("cuda", 4, "0"), Berth("cuda", 4, "1")]
    assert berths(torch.device("cuda:1"), None, 1) == [Berth("cuda", 8, "1")]


@pytest.mark.usefixtures("two_gpus")
def test_workers_that_share_a_gpu_share_its_memory() -> None:
    shared = berths(CUDA, None, 2)
    assert [(berth.gpu, berth.memory_share) for berth in shared] == [
        ("0", 0.5),
        ("1", 0.5),
        ("0", 0.5),
        ("1", 0.5),
    ]
    assert berths(CUDA, 3, 1)[0].memory_share == 0.5


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_named_as_the_environment_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [berth.gpu for berth in berths(CUDA, None, 1)] == ["5", "7"]
    assert [berth.gpu for berth in berths(torch.device("cuda:1"), None, 1)] == ["7"]


def test_a_worker_that_keeps_dying_is_restarted_ever_later() -> None:
    pauses = [crew._pause_s(restarts) for restarts in range(12)]
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[-1] == crew.LONGEST_RESTART_S


def test_memory_is_that_of_the_current_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's calls refuse a device without a number."""

    class Properties:
        total_memory = 80 * 2**30

    def fraction(index: object) -> float:
        assert index == 1
        return 0.5

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", fraction)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    assert memory_bytes(CUDA) == 40 * 2**30


@pytest.mark.usefixtures("two_gpus")
def test_that_workers_take_turns_on_a_gpu_without_mps_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    shared = Request(model="vit", workers_per_gpu=4)
    assert ["take turns" in line for line in _notes(shared, CUDA)] == [True]
    assert not list(_notes(shared, CPU))
    assert not list(_notes(Request(model="vit"), CUDA))
    assert len(list(_notes(Request(model="vit", workers=3), CUDA))) == 1
    assert not list(_notes(Request(model="vit", workers=2), CUDA))
    (tmp_path / "control").touch()
    assert not list(_notes(shared, CUDA))
