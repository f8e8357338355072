"""`measure` as people use it: tables, JSON, a file for reports; unequal work is marked."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from models.errors import InputError
from objectives import speed, stretch
from objectives.calibration import Calibration
from objectives.intervals import Interval
from objectives.speed import Goal, Race, Timing
from study import speeds
from study.comparison_report import Asked, Compared, report_of
from study.settings import Settings
from study.speed_tables import speed_blocks, speed_verdicts, task_table
from study.speeds import MeasureRequest, Speeds, TaskSpeeds, measure, verdict
from study.speeds_file import read_speeds
from study.tabular import Tabular
from tests.conftest import SUBSET, TINY
from tests.study.results import result_of, run_of

EVEN = tuple(1.0 + 0.001 * (i % 3) for i in range(15))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "WARM_UP_S", 0.01)
    monkeypatch.setattr(speed, "MOST_ATTEMPTS", 1)
    monkeypatch.setattr(speeds, "Goal", partial(Goal, sample_s=0.003, kernel_s=0.05))


def request(*models: str, **changes: object) -> MeasureRequest:
    quick = {"dataset": SUBSET, "device": "cpu", "half_width": 0.9, "batch_sizes": (10,)}
    return MeasureRequest(models, TINY, **{**quick, **changes})  # type: ignore[arg-type]


def made(ratio: float, trouble: bool = False, unequal: str = "") -> Speeds:
    """Speeds of two models, the second so many times as fast."""
    timings = tuple(
        Timing(name, tuple(s / by for s in EVEN), 100, 6, 6.0, 17_000_000, None)
        for name, by in (("vit", 1.0), ("vitbn", ratio))
    )
    calibration = Calibration(1.0, 1.5 if trouble else 1.0)
    task = TaskSpeeds("train", 100, Race(timings, calibration, 1, True), 1e-3)
    return Speeds(
        models=("vit", "vitbn"),
        tasks=(task,),
        unequal=unequal,
        half_width=0.01,
        family=1,
        dataset="mnist",
        precision="float32",
        execution="plain",
        device="cpu",
        threads=1,
        cores=(0,),
        at="2026-01-01",
        versions={},
        revision="",
    )


def test_all_tasks_are_measured_and_kept_in_a_file(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir, storage_url=None, mlflow_uri=None)
    said: list[str] = []
    found = measure(request("vit", "vitbn"), settings, said.append)
    assert [(task.work, task.batch_size) for task in found.tasks] == [("train", 10), ("eval", 10)]
    assert said == ["train, batches of 10: vit, vitbn", "eval, batches of 10: vit, vitbn"]
    names = [timing.name for timing in found.tasks[1].race.timings]
    assert names == ["vit", "vitbn", "vitbn, folded"]
    assert found.family == 3
    assert all((task.loading_s or 0) > 0 for task in found.tasks)
    path = data_dir / "speeds.json"
    path.write_text(json.dumps(found.as_dict()))
    assert read_speeds(path) == found
    assert (data_dir / "calibration.json").exists()


def test_unequal_work_is_refused_or_marked_in_every_table(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir, storage_url=None, mlflow_uri=None)
    with pytest.raises(InputError, match="executes 1 of 2 blocks, vit 2 of 2"):
        measure(request("vit", "vitbn_oneblock"), settings, lambda _: None)
    allowed = request("vit", "vitbn_oneblock", allow_unequal=True)
    found = measure(allowed, settings, lambda _: None)
    tables = [block for block in speed_blocks(found) if isinstance(block, Tabular)]
    assert len(tables) == 2
    assert all("UNEQUAL WORK" in table.title for table in tables)
    assert all("UNEQUAL WORK" in line for line in speed_verdicts(found))
    assert tables[0].rows[1][1] == "1 of 2"


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        (Interval(1.1, 1.01, 1.2), "faster"),
        (Interval(0.9, 0.8, 0.99), "slower"),
        (Interval(1.1, 0.9, 1.3), "no difference shown"),
    ],
)
def test_a_ratio_in_words(interval: Interval, word: str) -> None:
    assert verdict(interval) == word


def test_a_table_has_ratio_gain_and_verdict() -> None:
    row = task_table(made(1.25), made(1.25).tasks[0]).rows[1]
    assert row[0] == "vitbn"
    assert row[5].startswith("1.250 (")
    assert row[6].startswith("20.0% (")
    assert row[7] == "faster"


def test_a_disturbed_measurement_has_no_verdict() -> None:
    found = made(1.25, trouble=True)
    table = task_table(found, found.tasks[0])
    assert table.rows[1][7] == "unreliable"
    assert "UNRELIABLE: the device became 50% slower" in table.notes[0]
    (line,) = speed_verdicts(found)
    assert "UNRELIABLE" in line
    assert "faster" not in line


def test_a_report_takes_measured_speeds() -> None:
    results = tuple(result_of(model, [run_of(1, 0.9)]) for model in ("vit", "vitbn"))
    asked = Asked(tuple(r.name for r in results), speeds=made(1.25))
    found = report_of(Compared(results, {}, (), asked))
    assert any(
        "vitbn against vit, training step, batch size 100: faster" in v for v in found.verdicts
    )
    assert "speed-train-100" in [table.name for table in found.tables]
    assert "speed" in [chart.name for chart in found.charts]


def test_a_file_without_speeds_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("{}", "no json", "[1]"):
        path.write_text(text)
        with pytest.raises(InputError, match="holds no speeds; 'bnvit-study measure -o' writes"):
            read_speeds(path)


def test_what_it_was_measured_on_is_one_sentence_in_a_report() -> None:
    told = next(iter(speed_blocks(replace(made(1.0), cores=(0, 1, 2, 5, 8, 9)))))
    assert isinstance(told, str)
    assert told.startswith("Device: cpu, 1 thread on cores 0-2,5,8-9; images: mnist; method: ")
