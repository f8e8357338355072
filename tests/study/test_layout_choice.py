"""How many workers a CPU is divided among."""

from pathlib import Path

import pytest

from objectives.layouts import Layout
from study import layout_choice
from study.errors import WorkerError
from study.layout_choice import choose

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
    assert line.startswith("workers: nothing is to be gained; 2 × 2 threads train 1.19 times")


def test_one_worker_may_be_the_fastest() -> None:
    layout, line = chosen(1_000.0, 700.0, 500.0)
    assert (layout, line) == (ALONE, "workers: one with all 4 threads is the fastest")


def test_a_trial_run_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> float:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(layout_choice, "images_per_s", failing)
    monkeypatch.setattr(layout_choice, "_probe", lambda *_: None)
    with pytest.raises(WorkerError, match=r"a trial run failed \(out of memory\); give a number"):
        layout_choice.measured_layout(None, Path(), 2, [].append)  # type: ignore[arg-type]
