"""How many workers a CPU is divided among."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from objectives.layout_probe import Probe
from objectives.layouts import Layout, layouts
from study import layout_choice
from study.errors import WorkerError
from study.layout_choice import choose, fitting, local_workers, measured_layout
from study.request import Request, Workers
from tests.conftest import SUBSET, TINY

PROBE = Probe("vitbn", asdict(TINY), SUBSET, "", batch_size=20)

ALONE, TWO, FOUR = Layout(1, 4), Layout(2, 2), Layout(4, 1)


def chosen(*speeds: float) -> tuple[Layout, str]:
    said: list[str] = []
    layout = choose(dict(zip((ALONE, TWO, FOUR), speeds, strict=True)), said.append)
    (line,) = said
    return layout, line


def test_the_fastest_is_taken_where_it_is_worth_it() -> None:
    layout, line = chosen(1_000.0, 1_250.0, 1_500.0)
    assert layout == FOUR
    assert line == "workers: 4 × 1 threads train 1.50 times as much as one worker with all"


def test_a_small_gain_is_said_and_left() -> None:
    layout, line = chosen(1_000.0, 1_190.0, 900.0)
    assert layout == ALONE
    assert line.startswith("workers: too little is to be gained; 2 × 2 threads train 1.19 times")


def test_one_worker_may_be_the_fastest() -> None:
    layout, line = chosen(1_000.0, 700.0, 500.0)
    assert (layout, line) == (ALONE, "workers: one with all 4 threads is the fastest")


def test_a_trial_run_that_fails_is_one_line() -> None:
    with pytest.raises(WorkerError, match=r"a trial run failed \(.*/nowhere.*; give a number"):
        measured_layout(replace(PROBE, dataset="idx:/nowhere"), layouts(2), print)


def test_a_layout_that_does_not_train_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(layout: Layout, *_: object) -> float:
        if layout.workers == 4:
            raise RuntimeError("no memory")
        return 1_000.0 * layout.workers

    monkeypatch.setattr(layout_choice, "images_per_s", trained)
    said: list[str] = []
    assert measured_layout(PROBE, [ALONE, TWO, FOUR], said.append) == TWO
    assert said[1:] == [
        "workers: 4 × 1 threads did not train (no memory)",
        "workers: 2 × 2 threads train 2.00 times as much as one worker with all",
    ]


def test_one_core_needs_no_trial_run() -> None:
    said: list[str] = []
    assert measured_layout(PROBE, layouts(1), said.append) == Layout(1, 1)
    assert said == ["workers: one core, or memory for no more: one worker"]


@pytest.mark.parametrize(
    ("asked", "device", "is_done", "expected"),
    [
        (3, "cpu", False, 3),
        (None, "cpu", False, None),
        ("auto", "cuda", False, None),
        ("auto", "cpu", True, None),
    ],
)
def test_nothing_is_measured_where_there_is_nothing_to_choose(
    asked: Workers | None, device: str, is_done: bool, expected: int | None
) -> None:
    session = SimpleNamespace(
        request=Request("vitbn", workers=asked), device=torch.device(device), is_done=is_done
    )
    assert local_workers(session, pytest.fail) == expected  # type: ignore[arg-type]


def test_only_workers_that_fit_into_memory_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    for free_gib, workers in ((0.5, [1]), (3.5, [1, 2]), (64, [1, 2, 4, 8])):
        free = SimpleNamespace(available=int(free_gib * 2**30))
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: free)
        assert [layout.workers for layout in fitting(8)] == workers
