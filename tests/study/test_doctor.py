"""What the doctor finds, in real stores with something wrong in them."""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from rich.console import Console
from sqlalchemy import text

from study import doctor_mlflow, doctor_node, doctor_store
from study.agreement import differences
from study.doctor import Finding, examine
from study.doctor_view import findings_table
from study.identity import IDENTITY_KEY
from study.replay import spool_folder
from study.request import Request
from study.service import Session
from study.settings import Settings
from study.storage import Store
from study.studies import CHECKPOINTS_KEY, MLFLOW_KEY, runs_of, show_study
from study.tracking import TrialRecord
from tests.study.made import RUNGS, Made, make_study

Search = Callable[..., Session]
BEST = (0.25, 0.5, 0.75)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait for records that are on their way."""
    monkeypatch.setattr(doctor_mlflow, "RECHECK_S", 0.0)


@pytest.fixture
def made(store: Store, request: pytest.FixtureRequest) -> Iterator[Made]:
    """A study named after the test; its workers are gone afterwards."""
    made = make_study(store, request.node.name.replace("[", "-").replace("]", ""))
    yield made
    made.sign_off()
    optuna.delete_study(study_name=made.study.study_name, storage=store.storage)


def of(findings: list[Finding], subject: str) -> list[Finding]:
    return [finding for finding in findings if finding.subject == subject]


def bad(findings: list[Finding], subject: str) -> list[str]:
    return [finding.message for finding in of(findings, subject) if not finding.is_good]


def test_all_is_well_after_a_study(
    store: Store, settings: Settings, small: Request, search: Search
) -> None:
    name = search(small).study.study_name
    findings = examine(settings, "cpu")
    subjects = [finding.subject for finding in findings]
    assert subjects[:5] == ["store", "schema", "schema", "clock", "workers"]
    assert subjects[-3:] == ["spool", "device", "disk"]
    data, records = of(findings, f"study {name}")
    assert data.message.endswith("the data are here")
    assert records.message == "MLflow agrees on 4 ended trials"
    assert all(finding.is_good for finding in findings if name in finding.subject)
    assert not any(finding.advice for finding in findings if finding.is_good)
    told = " ".join(finding.message for finding in findings)
    for expected in (store.label, "PostgreSQL", "round trip", "Optuna's tables", "GiB free"):
        assert expected in told


def test_records_that_differ_are_found_in_mlflow_itself(
    store: Store, settings: Settings, small: Request, search: Search
) -> None:
    study = search(small).study
    runs = runs_of(study)
    assert runs is not None
    mine = "run_uuid IN (SELECT run_uuid FROM runs WHERE experiment_id = :id)"
    engine = sqlalchemy.create_engine(store.mlflow_url)
    with engine.begin() as connection:
        for change in (
            f"UPDATE metrics SET value = value + 1e-6 WHERE step = 114 AND {mine}",
            f"UPDATE tags SET value = 'lost' WHERE key = 'outcome' AND {mine}",
        ):
            connection.execute(text(change), {"id": int(runs.experiment_id)})
    engine.dispose()
    found = of(examine(settings, "cpu"), f"study {study.study_name}")[-1]
    assert found.message.startswith("8 differences between Optuna and MLflow: trial 0 is lost in")
    assert found.message.endswith("; and 3 more, which --json lists")
    assert len(found.details) == 8


def test_an_experiment_that_is_gone_or_elsewhere_is_told_apart(
    settings: Settings, small: Request, search: Search
) -> None:
    session = search(small, trials=1)
    subject, study = f"study {session.study.study_name}", session.study
    runs = runs_of(study)
    assert runs is not None
    study.set_user_attr(MLFLOW_KEY, "http://elsewhere")
    study.set_user_attr("mlflow_experiment_id", "0")  # here somebody else's
    found = of(examine(settings, "cpu"), subject)[-1]
    assert (found.is_good, "recorded in http://elsewhere" in found.message) == (True, True)
    study.set_user_attr(MLFLOW_KEY, None)
    assert bad(examine(settings, "cpu"), subject) == ["its experiment 0 is not in MLflow"]
    study.set_user_attr("mlflow_experiment_id", runs.experiment_id)
    assert bad(examine(settings, "cpu"), subject) == []


def test_the_last_rungs_of_a_trial_that_killed_its_workers_may_be_missing(made: Made) -> None:
    made.trial("failed", values=BEST)
    few = {0: record(outcome="failed", val_accuracy={114: [0.25]})}
    seen = show_study(made.store, made.study.study_name)
    assert differences(seen, few) == []
    few = {0: record(outcome="complete", val_accuracy={114: [0.25]})}
    assert differences(seen, few) == ["trial 0 is complete in MLflow, failed in Optuna"]


def record(number: int = 0, **changes: object) -> TrialRecord:
    values = {rung: [value] for rung, value in zip(RUNGS, BEST, strict=True)}
    told = {"outcome": "complete", "val_accuracy": values, "other_run_ids": ()} | changes
    return TrialRecord(number=number, run_id="r", status="FINISHED", **told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (None, "trial 0 has no run"),
        (record(other_run_ids=("a", "b")), "trial 0 has 3 runs"),
        (record(outcome="pruned"), "trial 0 is pruned in MLflow, complete in Optuna"),
        (record(outcome=None), "trial 0 is nothing in MLflow, complete in Optuna"),
        (record(val_accuracy={114: [0.25], 917: [0.75]}), "trial 0 lacks rung 458 in MLflow"),
        (
            record(val_accuracy={114: [0.25], 458: [0.5, 0.5], 917: [0.75]}),
            "trial 0 has rung 458 2 times in MLflow",
        ),
        (
            record(val_accuracy={114: [0.25], 300: [0.5], 458: [0.5], 917: [0.75]}),
            "trial 0 has rung 300 in MLflow only",
        ),
        (
            record(val_accuracy={114: [0.25], 458: [0.5], 917: [0.75 + 2e-9]}),
            "trial 0 has 0.750000002 at rung 917 in MLflow, 0.75 in Optuna",
        ),
        (record(val_accuracy={114: [0.25], 458: [0.5], 917: [0.75 + 5e-10]}), ""),
    ],
)
def test_each_difference_has_a_line(made: Made, found: TrialRecord | None, line: str) -> None:
    made.trial(values=BEST)
    made.trial("running", (0.25,))  # on its way: not compared
    seen = show_study(made.store, made.study.study_name)
    assert differences(seen, {0: found} if found else {}) == ([line] if line else [])


def test_workers_that_are_silent_or_differ_are_named(settings: Settings, made: Made) -> None:
    made.worker("a")
    assert bad(examine(settings, "cpu"), "workers") == []
    made.worker("b", torch="2.12")
    made.worker("c", silent_s=50)
    silent, versions = bad(examine(settings, "cpu"), "workers")
    assert re.fullmatch(r"c on node silent for [5-7]\d s, without having left", silent)
    made.worker("d", silent_s=700)
    found = of(examine(settings, "cpu"), "workers")
    (told,) = [finding for finding in found if finding.message.startswith("d on node silent")]
    assert told.is_good, "no news any more"
    assert versions == "torch 2.11 on a; 2.12 on b"


def test_a_clock_that_is_off_is_named(
    store: Store, settings: Settings, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.worker("late")
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE bnvit.worker SET clock_ahead_s = -7"))
    assert bad(examine(settings, "cpu"), "clock") == ["worker late is 7.0 s behind the store"]
    monkeypatch.setattr(doctor_store, "clock_ahead_s", lambda _: 60.0)
    assert "this node is 60.0 s ahead of the store" in bad(examine(settings, "cpu"), "clock")


@pytest.fixture
def datasets(settings: Settings) -> Iterator[Path]:
    """Where data sets are kept, empty: other tests of the session may have fetched some."""
    kept, aside = (settings.data_dir / name for name in ("datasets", "datasets-aside"))
    if kept.exists():
        kept.rename(aside)
    yield kept
    shutil.rmtree(kept, ignore_errors=True)
    if aside.exists():
        aside.rename(kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_checksum": "another"}, "the data here differ: checksum"),
        ({"dataset": "idx:{empty}"}, "no train-images-idx3-ubyte"),
        ({"dataset": "idx:/nowhere"}, "there is no folder /nowhere"),
        ({"dataset": "imagenet"}, "there is no folder"),
        ({"dataset": "tiny-imagenet"}, ""),
        ({"dataset": "mnist"}, ""),
        ({"dataset": "cifar"}, "unknown data set 'cifar'"),
        ({"schema_version": 77}, "written by another version"),
    ],
)
def test_each_study_is_read_and_its_data_looked_for(
    settings: Settings,
    made: Made,
    tmp_path: Path,
    datasets: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    changes = {
        key: value.format(empty=tmp_path) if isinstance(value, str) else value
        for key, value in changes.items()
    }
    made.study.set_user_attr(IDENTITY_KEY, made.study.user_attrs[IDENTITY_KEY] | changes)
    found = bad(examine(settings, "cpu"), f"study {made.study.study_name}")
    assert len(found) == bool(message)
    assert message in " ".join(found)
    assert not any((datasets / name).exists() for name in ("mnist", "tiny-imagenet")), "downloaded"


def test_what_waits_in_spools_is_counted(store: Store, settings: Settings) -> None:
    folder = spool_folder(settings.spool_dir, store, store.mlflow_url)
    for place in (folder, settings.spool_dir / "of another store"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "node:1:dead.jsonl").write_text('{}\n#"op": 1}\n{}\n')
        (place / "rejected.jsonl").write_text("{}\n")
    found = of(examine(settings, "cpu"), "spool")
    shutil.rmtree(settings.spool_dir)
    assert [finding.is_good for finding in found] == [False] * 4
    waiting = [finding for finding in found if "wait in" in finding.message]
    assert all("2 records of 1 worker that died here" in told.message for told in waiting)
    assert {told.advice for told in waiting} == {
        "pass them on with: bnvit-study sync",
        "pass them on with: bnvit-study sync, with the store and the MLflow that they are for",
    }
    assert "MLflow refused 1 record" in " ".join(told.message for told in found)


def test_places_for_checkpoints_are_tried(settings: Settings, made: Made, tmp_path: Path) -> None:
    made.study.set_user_attr(CHECKPOINTS_KEY, "file:///dev/null/x")  # as its workers are told
    assert "/dev/null/x" in bad(examine(settings, "cpu"), "checkpoints")[0]
    good = settings.model_copy(update={"checkpoints": tmp_path.as_uri()})
    (found,) = of(examine(good, "cpu"), "checkpoints")
    assert (found.is_good, found.message) == (True, f"can be kept at {tmp_path.as_uri()}")
    local = settings.model_copy(update={"checkpoints": "local"})
    assert of(examine(local, "cpu"), "checkpoints") == []


def test_a_full_disk_and_a_missing_device_are_told(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.engine is not None
    monkeypatch.setattr(doctor_node, "LEAST_FREE_GIB", 1e9)
    findings = examine(settings, "cuda:99")
    assert len(bad(findings, "disk")) == len(bad(findings, "device")) == 1


def test_tracking_that_is_off_is_no_fault(settings: Settings, store: Store) -> None:
    assert store.engine is not None
    off = settings.model_copy(update={"mlflow_uri": "none"})
    (found,) = of(examine(off, "cpu"), "MLflow")
    assert (found.is_good, found.message) == (True, "tracking is off")


def test_without_a_store_the_rest_is_looked_at(data_dir: Path) -> None:
    settings = Settings(
        data_dir=data_dir,
        storage_url="postgresql://u:secret@127.0.0.1:9/x",
        mlflow_uri="http://127.0.0.1:9",
        checkpoints="nonsense://x",
    )
    findings = examine(settings, "cpu")
    state = [(finding.subject, finding.is_good) for finding in findings]
    assert state == [
        ("store", False),
        ("MLflow", False),
        ("spool", True),
        ("checkpoints", False),
        ("device", True),
        ("disk", True),
    ]
    assert findings[0].advice == "check that the server runs and that host and port are right"
    assert "secret" not in str(findings)


@pytest.mark.parametrize("uri", ["garbage", "ftp://x"])
def test_addresses_that_cannot_be_read_are_findings(data_dir: Path, uri: str) -> None:
    findings = examine(Settings(data_dir=data_dir, storage_url="mysql://x", mlflow_uri=uri), "tpu")
    subjects = [finding.subject for finding in findings if not finding.is_good]
    assert subjects == ["store", "MLflow", "device"]
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize("width", [80, 160])
def test_findings_are_shown_whole_with_the_advice_on_bad_ones(width: int) -> None:
    long = "x" * 100
    findings = [Finding("store", True, "fine", "unasked"), Finding(long, False, long, "do [this]")]
    console = Console(file=io.StringIO(), width=width)
    console.print(findings_table(findings))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0].split() == ["ok", "store", "fine"]
    assert lines[1].startswith("bad")
    assert max(map(len, lines)) <= width
    assert sum(line.count("x") for line in lines) == 200
    assert "→ do [this]" in console.file.getvalue()
    assert "unasked" not in console.file.getvalue()
