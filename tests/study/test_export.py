"""A study's trials as files for other programs."""

import io
import json
import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]
import pytest

from models.errors import InputError
from study.export import export_trials
from study.overview import Overview
from study.storage import Store
from study.studies import show_study
from tests.study.made import RUNGS, Made, make_study

COLUMNS = [
    *("number", "state", "outcome", "lr", "batch_size", "val_accuracy", "images_seen"),
    *("suggested_by", "attempt", "worker", "started", "finished", "duration_s"),
    *("mlflow_run_id", "reason", *(f"val_accuracy_at_{rung}" for rung in RUNGS)),
]


@pytest.fixture
def made(store: Store, request: pytest.FixtureRequest) -> Made:
    """A study named after the test, with a trial of each kind."""
    made = make_study(store, request.node.name.replace("[", "-").replace("]", ""))
    made.trial(suggested_by="tpe", mlflow_run_id="abc")
    made.trial("pruned", (0.125,))
    made.trial("failed", (), reason='a "bug", in\ntwo lines')
    made.lease(made.trial("running", (0.25,)), "node:1:a")
    return made


def seen(made: Made) -> Overview:
    return show_study(made.store, made.study.study_name)


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "csv": pd.read_csv,
    "json": lambda path: pd.DataFrame(json.loads(path.read_text())),
    "parquet": pd.read_parquet,
}


@pytest.mark.parametrize("format_", READERS)
def test_every_format_tells_the_same_of_every_trial(
    made: Made, tmp_path: Path, format_: str
) -> None:
    path = tmp_path / f"trials.{format_}"
    assert export_trials(seen(made), format_, path) == path
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    frame = READERS[format_](path)
    assert list(frame.columns) == COLUMNS
    assert list(frame["number"]) == [0, 1, 2, 3, 4]
    assert list(frame["outcome"]) == ["complete", "pruned", "failed", "running", "waiting"]
    assert list(frame["lr"].iloc[:4]) == [0.00123456789012] * 4  # all digits
    assert frame["lr"].isna().iloc[4]
    assert list(frame["batch_size"].iloc[:4].astype(int)) == [50] * 4
    assert [frame[f"val_accuracy_at_{rung}"][0] for rung in RUNGS] == [0.25, 0.5, 0.75]
    assert frame["val_accuracy_at_114"][1] == 0.125
    assert frame["val_accuracy_at_458"].isna()[1]
    assert (frame["duration_s"][0], frame["worker"][3]) == (30, "node:1:a")
    assert (frame["mlflow_run_id"][0], frame["suggested_by"][0]) == ("abc", "tpe")
    assert frame["reason"][2] == 'a "bug", in\ntwo lines'
    assert frame["worker"].isna()[0]
    started = pd.to_datetime(frame["started"], utc=True, format="ISO8601")
    row = made.study.get_trials()[0]
    assert row.datetime_start is not None
    assert started[0] == pd.Timestamp(row.datetime_start.astimezone())


@pytest.mark.parametrize("format_", ["csv", "json"])
def test_text_goes_to_standard_output(
    made: Made, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    assert export_trials(seen(made), format_, None) is None
    out = capsys.readouterr().out
    if format_ == "csv":
        assert list(pd.read_csv(io.StringIO(out)).columns) == COLUMNS
    else:
        assert len(json.loads(out)) == 5


def test_parquet_has_a_file_of_its_own_and_types(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = export_trials(seen(made), "parquet", None)
    assert path == Path(f"{made.study.study_name}.parquet")
    types = pd.read_parquet(path).dtypes
    assert str(types["started"]) == "datetime64[us, UTC]"
    assert str(types["batch_size"]) == "Int64"


def test_a_study_without_trials_has_the_same_columns(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    empty = seen(make_study(store, request.node.name, total=0))
    for format_, read in READERS.items():
        path = export_trials(empty, format_, tmp_path / format_)
        assert path is not None
        assert len(read(path)) == 0
    assert list(pd.read_parquet(tmp_path / "parquet").columns) == COLUMNS


def test_an_unwritable_file_is_one_line(made: Made, tmp_path: Path, closed_dir: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "trials.csv", closed_dir / "trials.csv"):
        with pytest.raises(InputError, match="cannot write") as raised:
            export_trials(seen(made), "csv", path)
        assert "\n" not in str(raised.value)


def test_an_older_file_stays_whole_until_it_is_replaced(made: Made, tmp_path: Path) -> None:
    path, link = tmp_path / "trials.csv", tmp_path / "link.csv"
    path.write_text("older")
    link.symlink_to(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*trials.csv \(File too large\)"):
            export_trials(seen(made), "csv", path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "older"
    assert sorted(tmp_path.iterdir()) == [link, path]
    export_trials(seen(made), "csv", link)
    assert path.read_text().startswith("number,state")
    assert link.is_symlink()


def test_a_pipe_is_written_to_and_not_replaced(made: Made, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(pipe.read_text)
        assert export_trials(seen(made), "csv", pipe) == pipe
        assert reading.result(timeout=10).startswith("number,state")
    assert pipe.is_fifo()
