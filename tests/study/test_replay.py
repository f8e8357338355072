"""What training tells reaches MLflow once, in order, whatever happens on the way."""

import json
import logging
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import optuna
import pytest
import sqlalchemy
import torch
from mlflow.entities import Run
from safetensors.torch import load_file
from sqlalchemy import func

from objectives.metrics import Diverged, RungMetrics
from objectives.objective import Result
from objectives.outcome import Outcome
from study.identity import UUID_KEY
from study.keeping import note_keeping
from study.mlflow_tracker import MlflowTracker
from study.recorder import TrialRecorder, record_study_end
from study.replay import Replayer, SyncReport, spool_folder, sync
from study.schema import leases
from study.spool import REJECTED, Line, Spool
from study.storage import Store, tracking_uri
from study.tracking import StudyRuns, TrialLabel, TrialRecord
from tests.integration.processes import until
from tests.integration.servers import MlflowServer
from tests.study.test_spool import leave_behind

RUNGS = (100, 400, 1600)
CURVE = {100: [0.5], 400: [0.5], 1600: [0.5]}
DONE = Result(Outcome.COMPLETE, 0.9)
ABSENT = "http://127.0.0.1:9"


def metrics(rung: int, accuracy: float = 0.5) -> RungMetrics:
    return RungMetrics(
        rung=rung,
        images_seen=rung + 7,
        epoch=rung / 400,
        train_loss=1.5,
        val_loss=1.25,
        val_accuracy=accuracy,
        val_accuracy_running_stats=0.25,
        val_top5_accuracy=0.75,
        grad_norm=2.0,
        train_time_s=3.0,
        val_time_s=0.5,
        train_images_per_s=None,
    )


@dataclass
class Desk:
    """A study with trials that are claimed by hand, and a place to record them."""

    store: Store
    uri: str
    folder: Path
    tracker: MlflowTracker
    study: optuna.Study
    runs: StudyRuns
    best: set[int] = field(default_factory=set)  # numbers of the trials that are

    def trial(self, attempt: int = 1) -> int:
        """A new claimed trial; returns its number."""
        trial = self.study.ask()
        row = {"trial_id": trial._trial_id, "attempt": attempt, "worker": "w"}
        with self.store.engine.begin() as connection:
            connection.execute(leases.insert().values(**row, expires_at=func.now()))
        return trial.number

    def claim_again(self, number: int) -> None:
        ours = leases.c.trial_id == self.trial_id(number)
        with self.store.engine.begin() as connection:
            connection.execute(leases.update().where(ours).values(attempt=leases.c.attempt + 1))

    def trial_id(self, number: int) -> int:
        return self.study.get_trials(deepcopy=False)[number]._trial_id

    def tell(self, number: int) -> None:
        self.study.tell(number, 0.5)

    def recorder(self, spool: Spool, number: int, attempt: int = 1) -> TrialRecorder:
        label = TrialLabel(self.study.study_name, self.uuid, number)
        return TrialRecorder(spool, self.runs, label, self.trial_id(number), attempt)

    @property
    def uuid(self) -> str:
        return str(self.study.user_attrs[UUID_KEY])

    def is_best(self, line: Line) -> bool:
        return line.number in self.best

    def replayer(self, spool: Spool, uri: str = "") -> Replayer:
        return Replayer(spool, self.store, uri or self.uri, self.is_best)

    def replay(self, spool: Spool) -> None:
        with self.replayer(spool) as replayer:
            assert replayer.flush(60)

    def sync(self, uri: str = "") -> SyncReport:
        return sync(self.folder, self.store, uri or self.uri, self.is_best)

    @property
    def curves(self) -> dict[int, TrialRecord]:
        return self.tracker.curves(self.runs)

    def run(self, number: int) -> Run:
        return self.tracker.client.get_run(self.curves[number].run_id)

    def files(self, number: int) -> set[str]:
        found = self.tracker.client.list_artifacts(self.run(number).info.run_id)
        return {file.path for file in found}

    def rejected(self) -> list[str]:
        path = self.folder / REJECTED
        return path.read_text().splitlines() if path.exists() else []


def open_desk(store: Store, uri: str, folder: Path) -> Desk:
    uuid = str(uuid4())
    study = optuna.create_study(study_name=uuid, storage=store.storage, direction="maximize")
    study.set_user_attr(UUID_KEY, uuid)
    tracker = MlflowTracker(uri)
    runs = tracker.open_study(uuid, uuid, {"model": "vit"}, folder / "artifacts")
    return Desk(store, uri, folder / "spool", tracker, study, runs)


@pytest.fixture
def desk(store: Store, tmp_path: Path) -> Iterator[Desk]:
    made = open_desk(store, tracking_uri(None, store), tmp_path)
    yield made
    made.tracker.disconnect()


@pytest.fixture
def spool(desk: Desk) -> Iterator[Spool]:
    with Spool(desk.folder, "worker") as opened:
        yield opened


def record(recorder: TrialRecorder, rungs: tuple[int, ...] = RUNGS) -> None:
    """A trial from its beginning to its end."""
    recorder.open({"lr": 0.1, "versions": {"torch": "2"}})
    for rung in rungs:
        recorder.rung(metrics(rung))
    recorder.close(DONE, "COMPLETE")


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_every_rung_is_recorded_once_in_order_with_its_own_time(desk: Desk, spool: Spool) -> None:
    number = desk.trial()
    began_ms = time.time() * 1000
    record(desk.recorder(spool, number))
    ended_ms = time.time() * 1000
    time.sleep(0.05)
    desk.replay(spool)
    run = desk.run(number)
    for key in ("epoch", "val_accuracy", "train_loss", "images_seen"):
        history = desk.tracker.client.get_metric_history(run.info.run_id, key)
        assert [point.step for point in history] == list(RUNGS)
        times = [began_ms - 1, *(point.timestamp for point in history), ended_ms]
        assert times == sorted(times)
    assert began_ms - 1 <= run.info.start_time <= run.info.end_time <= ended_ms
    assert "train_images_per_s" not in run.data.metrics
    assert run.data.params == {"lr": "0.1", "versions.torch": "2"}
    assert desk.files(number) == {"config.json"}
    assert run.info.status == "FINISHED"
    told = {key: value for key, value in run.data.tags.items() if "." not in key}
    assert told == {
        "trial_key": f"{desk.uuid}/{number}",
        "study": desk.study.study_name,
        "trial_number": str(number),
        "outcome": "complete",
        "optuna_state": "COMPLETE",
        "attempt": "1",
    }
    assert run.data.tags["mlflow.parentRunId"] == desk.runs.parent_run_id
    assert desk.study.get_trials()[number].user_attrs["mlflow_run_id"] == run.info.run_id


def test_how_a_trial_ended_is_told_whole(desk: Desk, spool: Spool) -> None:
    diverged, failed, waiting = desk.trial(), desk.trial(), desk.trial()
    desk.recorder(spool, diverged).open({})
    what = Diverged(step=3, images_seen=60, lr=0.1, best_val_accuracy=0.5)
    desk.recorder(spool, diverged).close(Result(Outcome.DIVERGED, 0.1, diverged=what), "COMPLETE")
    bug = Result(Outcome.FAILED, None, reason="x" * 9000, traceback="Traceback\nhere")
    desk.recorder(spool, failed).close(bug, "FAIL")  # without a beginning
    desk.recorder(spool, waiting).open({})
    desk.recorder(spool, waiting).put_back()
    desk.replay(spool)
    assert json.loads(desk.run(diverged).data.tags["diverged"])["step"] == 3
    run = desk.run(failed)
    assert (run.info.status, run.data.tags["optuna_state"]) == ("FAILED", "FAIL")
    assert run.data.tags["reason"].startswith("xxxx")
    assert desk.files(failed) == {"traceback.txt"}
    run = desk.run(waiting)
    assert (run.info.status, run.data.tags["outcome"]) == ("SCHEDULED", "waiting")


def test_replaying_twice_changes_nothing(desk: Desk, spool: Spool) -> None:
    number = desk.trial()
    record(desk.recorder(spool, number))
    lines = spool.path.read_bytes()
    desk.replay(spool)
    (desk.folder / "copy.jsonl").write_bytes(lines)
    before, run = desk.curves, desk.run(number)
    assert desk.sync() == SyncReport(replayed=5, outdated=0, left=0, rejected=0, files=1)
    assert desk.curves == before
    assert desk.run(number).to_dictionary() == run.to_dictionary()
    assert [path.name for path in desk.folder.iterdir()] == ["worker.jsonl"]


def test_an_attempt_that_was_overtaken_changes_nothing(desk: Desk, spool: Spool) -> None:
    number = desk.trial()
    dead = desk.recorder(spool, number)
    dead.open({"device": "old"})
    dead.rung(metrics(100, accuracy=0.1))
    dead.weights({"w": torch.zeros(2)})
    dead.put_back()
    desk.claim_again(number)
    with Spool(desk.folder, "other") as other:
        record(desk.recorder(other, number, attempt=2))
        desk.replay(other)
    finished = desk.run(number).to_dictionary()
    desk.replay(spool)
    assert desk.run(number).to_dictionary() == finished
    assert desk.curves[number].val_accuracy == CURVE
    assert [path.name for path in desk.folder.iterdir()] == ["worker.jsonl"]


def test_a_second_attempt_fills_the_gaps_of_the_first(desk: Desk, spool: Spool) -> None:
    number = desk.trial()
    first = desk.recorder(spool, number)
    first.open({"lr": 0.1})
    first.rung(metrics(100))
    desk.replay(spool)
    desk.claim_again(number)
    first.rung(metrics(400, accuracy=0.1))  # told late, by a worker that was cut off
    record(desk.recorder(spool, number, attempt=2))
    desk.replay(spool)
    seen = desk.curves[number]
    assert (seen.val_accuracy, seen.outcome) == (CURVE, "complete")
    assert desk.run(number).data.tags["attempt"] == "2"


def test_a_deleted_study_is_forgotten(
    desk: Desk, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    record(desk.recorder(spool, desk.trial()))
    optuna.delete_study(study_name=desk.study.study_name, storage=desk.store.storage)
    desk.replay(spool)
    assert desk.curves == {}
    assert warnings_of(caplog) == []


def test_lines_for_another_store_or_another_mlflow_go_nowhere(
    desk: Desk, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    number = desk.trial()
    recorder = desk.recorder(spool, number)
    recorder.label = replace(recorder.label, study_uuid="of-another-store")
    recorder.rung(metrics(100))
    desk.replay(spool)
    assert warnings_of(caplog) == []
    other = open_desk(desk.store, desk.uri, tmp_path)
    recorder = desk.recorder(spool, number)
    recorder.runs = other.runs
    recorder.rung(metrics(100))
    desk.replay(spool)
    assert (desk.curves, other.curves) == ({}, {})
    assert "is another study's: 'rung' of study" in warnings_of(caplog)[0]


def test_each_store_and_each_mlflow_has_its_own_folder(store: Store, tmp_path: Path) -> None:
    elsewhere = replace(store, uuid="another")
    changed = replace(elsewhere, optuna_url="postgresql://you:other@alias/optuna")
    folders = [
        spool_folder(tmp_path, place, uri)
        for place in (store, elsewhere, changed)
        for uri in (ABSENT, "http://me:pw@mlflow:5000", store.mlflow_url)
    ]
    assert len(set(folders)) == 6
    assert folders[3:6] == folders[6:]


def test_two_replayers_of_one_trial_make_one_run(desk: Desk, spool: Spool) -> None:
    numbers = [desk.trial() for _ in range(4)]
    for number in numbers:
        record(desk.recorder(spool, number))
    for name in ("one", "two"):
        shutil.copy(spool.path, desk.folder / f"{name}.jsonl")
    with (
        Spool(desk.folder, "one") as one,
        Spool(desk.folder, "two") as two,
        desk.replayer(one) as first,
        desk.replayer(two) as second,
    ):
        assert first.flush(60)
        assert second.flush(60)
    assert list(desk.curves) == numbers
    for seen in desk.curves.values():
        assert seen.val_accuracy == CURVE
        assert seen.other_run_ids == ()


def test_a_run_that_a_hung_request_made_is_merged(desk: Desk, spool: Spool) -> None:
    number = desk.trial()
    recorder = desk.recorder(spool, number)
    recorder.open({})
    recorder.rung(metrics(100))
    desk.replay(spool)
    tags = {"trial_key": f"{desk.uuid}/{number}", "trial_number": str(number)}
    desk.tracker.client.create_run(desk.runs.experiment_id, start_time=1, tags=tags)
    assert len(desk.curves[number].other_run_ids) == 1
    recorder.close(DONE, "COMPLETE")
    desk.replay(spool)
    seen = desk.curves[number]
    assert (seen.other_run_ids, seen.val_accuracy) == ((), {100: [0.5]})


def test_damaged_lines_are_set_aside_and_the_rest_is_replayed(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    number = desk.trial()
    with Spool(desk.folder, "dead") as spool:
        record(desk.recorder(spool, number))
    lines = spool.path.read_text().splitlines()
    lines[2] = lines[2][:40]
    spool.path.write_text("\n".join([*lines, '{"torn']))
    assert desk.sync() == SyncReport(replayed=4, outdated=0, left=0, rejected=1, files=1)
    assert desk.curves[number].val_accuracy == {100: [0.5], 1600: [0.5]}
    assert desk.rejected() == [lines[2]]
    rejected = desk.folder / REJECTED
    assert warnings_of(caplog) == [
        f"spool {spool.path}, line 3 cannot be read; set aside in {rejected}"
    ]
    assert list(desk.folder.iterdir()) == [rejected]


def test_what_mlflow_refuses_is_set_aside(
    desk: Desk, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    number = desk.trial()
    recorder = desk.recorder(spool, number)
    recorder.open({"bad%name\n": 1})
    recorder._tell("rung", rung=50, values={"epoch": "many"})
    recorder._tell("rung", rung=60, values={"no/../way": 1.0})
    recorder._tell("dance")
    recorder._tell("rung")
    recorder.rung(metrics(100))
    recorder.close(DONE, "COMPLETE")
    desk.replay(spool)
    seen = desk.curves[number]
    assert (seen.val_accuracy, seen.status) == ({100: [0.5]}, "FINISHED")
    assert [json.loads(line)["op"] for line in desk.rejected()] == [
        "open", "rung", "rung", "dance", "rung"
    ]  # fmt: skip
    told = warnings_of(caplog)
    assert len(told) == 5
    assert told[0].startswith("MLflow refused: ")
    assert "'open' of study" in told[0]


def test_a_run_without_a_beginning_is_made_all_the_same(desk: Desk, spool: Spool) -> None:
    number = desk.trial()
    desk.recorder(spool, number).rung(metrics(100))
    desk.replay(spool)
    seen = desk.curves[number]
    assert (seen.val_accuracy, seen.status) == ({100: [0.5]}, "RUNNING")


def test_only_the_best_trial_keeps_its_weights(desk: Desk, spool: Spool, tmp_path: Path) -> None:
    first, second, third = desk.trial(), desk.trial(), desk.trial()
    for number, is_best in ((first, True), (second, True), (third, False)):
        if is_best:
            desk.best = {number}
        recorder = desk.recorder(spool, number)
        recorder.open({})
        recorder.rung(metrics(100))
        recorder.weights({"w": torch.full((3,), float(number))})
        recorder.close(DONE, "COMPLETE")
        desk.tell(number)
        desk.replay(spool)
    holders = {number for number in desk.curves if "model.safetensors" in desk.files(number)}
    assert holders == {second}
    tagged = {number for number in desk.curves if "has_weights" in desk.run(number).data.tags}
    assert tagged == {second}
    run_id = desk.run(second).info.run_id
    path = desk.tracker.client.download_artifacts(run_id, "model.safetensors", str(tmp_path))
    assert torch.equal(load_file(path)["w"], torch.full((3,), 1.0))
    assert [path.name for path in desk.folder.iterdir()] == ["worker.jsonl"]
    desk.tracker.drop_others(desk.runs, None)
    assert desk.files(second) == {"config.json"}


def test_a_study_that_keeps_all_weights_deletes_none_until_it_keeps_the_best_again(
    desk: Desk, spool: Spool
) -> None:
    def end(number: int, is_best: bool = True) -> set[int]:
        """A trial ends, and is told of twice; returns which have weights then."""
        if is_best:
            desk.best = {number}
        recorder = desk.recorder(spool, number)
        recorder.open({})
        recorder.weights({"w": torch.full((3,), float(number))})
        recorder.close(DONE, "COMPLETE")
        desk.tell(number)
        lines = spool.path.read_bytes()
        desk.replay(spool)
        (desk.folder / "copy.jsonl").write_bytes(lines)
        desk.sync()
        return {n for n in desk.curves if "model.safetensors" in desk.files(n)}

    numbers = [desk.trial() for _ in range(4)]
    note_keeping(desk.study, "all")
    assert end(numbers[0]) == {0}
    assert end(numbers[1]) == {0, 1}
    note_keeping(desk.study, None)  # says nothing, so changes nothing
    assert end(numbers[2], is_best=False) == {0, 1, 2}
    note_keeping(desk.study, "best")
    assert end(numbers[3]) == {3}
    assert [path.name for path in desk.folder.iterdir()] == ["worker.jsonl"]


def test_weights_wait_until_optuna_knows_how_the_trial_ended(desk: Desk, spool: Spool) -> None:
    number = desk.trial()
    desk.best = {number}
    recorder = desk.recorder(spool, number)
    recorder.open({})
    recorder.weights({"w": torch.ones(2)})
    recorder.close(DONE, "COMPLETE")
    with desk.replayer(spool) as replayer:
        until(lambda: replayer.waiting == 2)
        assert not replayer.flush(0.5)
        assert "model.safetensors" not in desk.files(number)
        desk.tell(number)
        assert replayer.flush(10)
    assert "model.safetensors" in desk.files(number)


def test_weights_of_a_trial_that_its_dead_worker_never_ended_are_dropped(desk: Desk) -> None:
    number = desk.trial()
    desk.best = {number}
    with Spool(desk.folder, "dead") as spool:
        recorder = desk.recorder(spool, number)
        recorder.open({})
        recorder.weights({"w": torch.ones(2)})
    assert desk.sync().left == 0
    assert desk.files(number) == {"config.json"}
    assert list(desk.folder.iterdir()) == []


def test_a_new_attempt_clears_away_the_weights_of_older_ones(desk: Desk, spool: Spool) -> None:
    number = desk.trial()
    desk.recorder(spool, number, attempt=1).weights({"w": torch.ones(2)})
    desk.recorder(spool, number, attempt=2).open({})
    assert [path.suffix for path in desk.folder.iterdir()] == [".jsonl"]


def test_the_parent_run_shows_the_latest_that_is_known(desk: Desk, spool: Spool) -> None:
    def status() -> str:
        return str(desk.tracker.client.get_run(desk.runs.parent_run_id).info.status)

    early = Line("close_study", desk.uuid, desk.uuid, *desk.runs.__dict__.values())
    record_study_end(spool, desk.study, desk.runs, finished=True)
    desk.replay(spool)
    assert status() == "FINISHED"
    spool.append(replace(early, at_ms=early.at_ms - 5000, data={"finished": False}))
    desk.replay(spool)
    assert status() == "FINISHED"
    desk.tracker.open_study(desk.uuid, desk.uuid, {}, desk.folder)
    assert status() == "RUNNING"
    spool.append(replace(early, data={"finished": True}))  # from before it was opened again
    desk.replay(spool)
    assert status() == "RUNNING"
    record_study_end(spool, desk.study, desk.runs, finished=False)
    desk.replay(spool)
    assert status() == "SCHEDULED"


def test_sync_replays_the_spool_of_a_killed_worker_and_no_living_ones(
    desk: Desk, spool: Spool
) -> None:
    number = desk.trial()
    record(desk.recorder(spool, number))
    leave_behind(desk.folder, 3)
    assert desk.sync() == SyncReport(replayed=0, outdated=3, left=0, rejected=0, files=1)
    assert [path.name for path in desk.folder.iterdir()] == ["worker.jsonl"]
    assert spool.waiting == 5
    assert desk.curves == {}


def test_a_worker_passes_on_what_others_of_its_node_left(desk: Desk, spool: Spool) -> None:
    number = desk.trial()
    with Spool(desk.folder, "dead") as left:
        record(desk.recorder(left, number))
    assert desk.curves == {}
    with desk.replayer(spool):
        until(lambda: desk.curves.get(number) is not None)
        until(lambda: list(desk.curves[number].val_accuracy) == list(RUNGS))


def test_an_absent_server_costs_training_nothing_and_sync_nothing_either(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    number = desk.trial()
    with Spool(desk.folder, "dead") as spool, desk.replayer(spool, ABSENT) as replayer:
        record(desk.recorder(spool, number))
        assert not replayer.flush(2.5)
        assert replayer.waiting == 5
    (told,) = warnings_of(caplog)
    assert told.startswith("MLflow is away or out of order: ")
    assert desk.sync(ABSENT) == SyncReport(replayed=0, outdated=0, left=5, rejected=0, files=1)
    assert desk.sync("none") == SyncReport(replayed=0, outdated=0, left=5, rejected=0, files=1)
    assert desk.sync() == SyncReport(replayed=5, outdated=0, left=0, rejected=0, files=1)
    assert desk.curves[number].val_accuracy == CURVE


def test_a_server_that_hangs_holds_up_neither_training_nor_the_end(desk: Desk) -> None:
    number = desk.trial()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Spool(desk.folder, "w") as spool, desk.replayer(spool, uri):
            record(desk.recorder(spool, number))
            request, _ = silent.accept()
            request.recv(1)
            began_s = time.monotonic()
            record(desk.recorder(spool, number))
        request.close()
        assert time.monotonic() - began_s < 3
    with Spool(desk.folder, "w") as spool:
        assert spool.waiting == 10


def test_an_outage_of_the_store_loses_nothing(
    desk: Desk, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    number = desk.trial()
    record(desk.recorder(spool, number))
    away = sqlalchemy.create_engine("postgresql+psycopg://nobody@127.0.0.1:9/x")
    lost = replace(desk.store, engine=away)
    with Replayer(spool, lost, desk.uri, desk.is_best) as replayer:
        assert not replayer.flush(2)
    assert len(warnings_of(caplog)) == 1
    desk.replay(spool)
    assert desk.curves[number].val_accuracy == CURVE


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Iterator[MlflowServer]:
    with MlflowServer(tmp_path, tracking_uri(None, store)) as opened:
        yield opened


def test_a_server_that_is_killed_in_the_middle_gets_everything_once(
    store: Store, server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="study")
    desk = open_desk(store, server.uri, tmp_path)
    numbers = [desk.trial() for _ in range(6)]
    desk.best = {numbers[-1]}
    with Spool(desk.folder, "w") as spool, desk.replayer(spool) as replayer:
        recorders = [desk.recorder(spool, number) for number in numbers]
        for number, recorder in zip(numbers, recorders, strict=True):
            recorder.open({"lr": 0.1})
            for rung in RUNGS:
                recorder.rung(metrics(rung, accuracy=number / 10))
            recorder.weights({"w": torch.full((3,), float(number))})
            recorder.close(DONE, "COMPLETE")
            desk.tell(number)
        until(lambda: 4 < replayer.waiting < 24)
        server.kill()
        left = replayer.waiting
        assert left > 0
        recorders[-1]._tell("rung", rung=7, values={"epoch": "many"})  # while nobody listens
        recorders[-1].put_back()
        recorders[-1].close(DONE, "COMPLETE")
        assert replayer.waiting == left + 3
        server.start()
        assert replayer.flush(30)
    assert list(desk.curves) == numbers
    for number, seen in desk.curves.items():
        assert seen.val_accuracy == {rung: [number / 10] for rung in RUNGS}
        assert (seen.status, seen.outcome, seen.other_run_ids) == ("FINISHED", "complete", ())
        assert ("model.safetensors" in desk.files(number)) == (number in desk.best)
    told = [(entry.name, entry.levelname) for entry in caplog.records]
    assert told[:2] == [("study.replay", "WARNING"), ("study.replay", "INFO")]
    assert told[2:] == [("study.settling", "WARNING")]
    assert len(desk.rejected()) == 1
