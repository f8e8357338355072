"""Checkpoints on real disks and in real places, damaged, full, shared and cut off on purpose."""

import logging
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from models.errors import InputError
from study import checkpoint_places, checkpoints
from study import place as place_module
from study.checkpoint_files import write
from study.checkpoint_places import ArtifactPlace, FsspecPlace, check_place
from study.checkpoints import Checkpoints
from study.place import Place, PlaceError, within
from tests.integration.servers import MlflowServer

UUID = "11112222"
SAVE_S = 1.0
"""Far more than a save of a small state takes, far less than any place is waited for."""


def state(value: float) -> dict[str, Any]:
    """A small state of tensors and plain values, that can be told from others."""
    return {"weights": torch.full((100, 100), float(value)), "value": value}


def values(kept: Checkpoints, number: int = 3) -> list[tuple[int, float]]:
    """Images seen and value of all readable states."""
    return [(images, float(found["weights"].mean())) for images, found in kept.states(number)]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture
def local(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "node" / UUID)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that all nodes reach."""
    return tmp_path / "shared"


def node(tmp_path: Path, name: str, place: Place) -> Checkpoints:
    """The checkpoints as one node of several sees them."""
    return Checkpoints(tmp_path / name / UUID, place)


def folder_place(shared: Path) -> FsspecPlace:
    return FsspecPlace(shared.as_uri(), UUID)


def test_the_last_two_states_are_kept_and_read_newest_first(local: Checkpoints) -> None:
    assert values(local) == []
    for images in (100, 200, 1_000_000, 300):
        local.save(3, state(images), images)
    local.save(30, state(1.0), 50)
    assert values(local) == [(1_000_000, 1e6), (300, 300.0)]
    local.save(3, state(2e6), 2_000_000)
    assert values(local) == [(2_000_000, 2e6), (1_000_000, 1e6)]
    assert values(local, 30) == [(50, 1.0)]
    local.discard(3)
    assert values(local) == []
    assert [path.parent.name for path in files(local.folder)] == ["trial-30"]
    local.sweep()
    assert not local.folder.exists()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    damage: Callable[[Path], None], local: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    local.save(3, state(1.0), 100)
    local.save(3, state(2.0), 200)
    damage(files(local.folder)[-1])
    assert next(local.states(3))[0] == 100
    assert warnings(caplog) == [
        "trial 3: the checkpoint at 200 images is damaged (its content has changed); "
        "the trial falls back to the one before"
    ]
    caplog.clear()
    damage(files(local.folder)[-1])
    assert values(local) == []
    (line,) = warnings(caplog)
    assert line.startswith("trial 3: the checkpoint at 100 images is damaged")
    assert line.endswith("; the trial starts afresh")


def test_a_state_saved_after_a_fresh_start_outlives_those_that_went_further(
    local: Checkpoints,
) -> None:
    local.save(3, state(1.0), 400)
    local.save(3, state(2.0), 500)
    local.save(3, state(3.0), 10)
    local.save(3, state(4.0), 20)
    assert values(local) == [(500, 2.0), (400, 1.0), (20, 4.0)]
    for path in files(local.folder)[1:]:
        truncate(path)
    assert values(local) == [(20, 4.0)]
    local.save(3, state(5.0), 30)
    assert values(local) == [(30, 5.0), (20, 4.0)]


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("content", [{"weights": Code()}, [1, 2, 3]])
def test_what_is_no_state_is_not_loaded(
    content: Any,
    local: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    local.save(3, content, 100)
    assert values(local) == []
    assert len(warnings(caplog)) == 1
    assert not Path("executed").exists()
    assert len(files(local.folder)) == 1, "another version of torch might read it"


def test_a_folder_that_cannot_be_written_is_the_callers_error(closed_dir: Path) -> None:
    with pytest.raises(PermissionError) as caught:
        Checkpoints(closed_dir / UUID).save(3, state(1.0), 100)
    assert caught.value.strerror == "Permission denied"


@pytest.mark.parametrize("limit", [10, 500, 5_000, 39_990])
def test_a_full_disk_is_the_callers_error_and_leaves_what_was_there(
    limit: int, local: Checkpoints
) -> None:
    """A limit on the size of files fails writes as a full disk does, wherever it strikes."""
    local.save(3, state(1.0), 100)
    before = files(local.folder)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            local.save(3, state(2.0), 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert caught.value.strerror == "File too large"
    assert files(local.folder) == before
    assert values(local) == [(100, 1.0)]


SAVER = """
import sys
from pathlib import Path
import torch
from study.checkpoints import Checkpoints
kept, images = Checkpoints(Path(sys.argv[1])), 0
while True:
    images += 1
    kept.save(3, {"weights": torch.full((1000, 1000), float(images))}, images)
    print(images, flush=True)
"""


def test_a_worker_killed_while_it_saves_leaves_no_half_file(
    local: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(local.folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        saved = [int(process.stdout.readline()) for _ in range(3)][-1]
        time.sleep(0.05)
        process.kill()
        saved = max([saved, *map(int, process.stdout.read().split())])
        process.wait()
        process.stdout.close()
        found = values(local)
        assert len(found) >= 2
        assert all(images == value for images, value in found)
        assert found[0][0] in (saved, saved + 1)
        shutil.rmtree(local.folder / "trial-3")
    assert warnings(caplog) == []
    local.discard(3)
    assert files(local.folder) == []


def test_a_file_is_moved_though_its_folder_comes_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / "node" / UUID
    end_s = time.monotonic() + 1

    def delete() -> None:
        while time.monotonic() < end_s:
            shutil.rmtree(folder / "trial-3", ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)

    with ThreadPoolExecutor() as pool:
        deleting = pool.submit(delete)
        while time.monotonic() < end_s:
            write(folder, "trial-3", {"value": 1}, 1)
        deleting.result()
    assert write(folder, "trial-3", {"value": 1}, 1) is not None
    assert len(files(folder)) == 1


def test_a_file_in_the_place_of_a_trials_folder_is_told(local: Checkpoints) -> None:
    local.folder.mkdir(parents=True)
    (local.folder / "trial-3").touch()
    with pytest.raises(FileExistsError):
        local.save(3, state(1), 1)


def test_workers_of_the_same_trial_do_not_trouble_each_other(tmp_path: Path, shared: Path) -> None:
    """A frozen worker that wakes up saves, while others read, save and discard the trial."""
    errors: list[BaseException] = []
    end_s = time.monotonic() + 2

    def repeated(call: Callable[[Checkpoints, int], object]) -> None:
        kept = node(tmp_path, "node", folder_place(shared))
        try:
            images = 0
            while time.monotonic() < end_s:
                call(kept, images := images + 1)
        except BaseException as error:
            errors.append(error)
        kept.close()

    calls: list[Callable[[Checkpoints, int], object]] = [
        lambda kept, images: kept.save(3, state(images), images),
        lambda kept, images: kept.save(3, state(images), images),
        lambda kept, _: values(kept),
        lambda kept, _: kept.discard(3),
    ]
    threads = [threading.Thread(target=repeated, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


MEASURED = """
import resource, sys
from pathlib import Path
import torch
from study.checkpoints import Checkpoints
kept = Checkpoints(Path(sys.argv[1]))
kept.save(1, {"weights": torch.zeros(10)}, 1)
next(kept.states(1))
state = {str(n): torch.randn(32, 1024, 1024) for n in range(2)}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept.save(3, state, 1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_large_state_is_not_copied_in_memory(local: Checkpoints) -> None:
    command = [sys.executable, "-c", MEASURED, str(local.folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(told.stdout) < 16, "MB, for a state of 256 MB"


def test_another_node_goes_on_from_the_shared_place(tmp_path: Path, shared: Path) -> None:
    first = node(tmp_path, "first", folder_place(shared))
    for images in (100, 200, 300):
        first.save(3, state(images), images)
        assert first.flush(10)
    copies = files(shared / UUID / "trial-3")
    assert [int(path.name.split("-")[0]) for path in copies] == [200, 300]
    second = node(tmp_path, "second", folder_place(shared))
    assert values(second) == [(300, 300.0), (200, 200.0)]
    second.save(3, state(4.0), 400)
    assert second.flush(10)
    assert [images for images, _ in values(first)] == [400, 300, 200]
    second.discard(3)
    assert second.flush(10)
    assert files(shared) == []
    first.sweep()
    assert first.flush(10)
    assert list(shared.iterdir()) == []
    first.close()
    second.close()


def test_only_what_is_needed_is_fetched(tmp_path: Path, shared: Path) -> None:
    fetched = []

    class Counting(FsspecPlace):
        def get(self, trial: str, name: str, to: Path) -> Path:
            fetched.append(int(name.split("-")[0]))
            return super().get(trial, name, to)

    place = Counting(shared.as_uri(), UUID)
    first, second = node(tmp_path, "first", place), node(tmp_path, "second", place)
    for images in (100, 200):
        first.save(3, state(images), images)
        assert first.flush(10)
    assert next(first.states(3))[0] == 200
    assert fetched == []
    assert next(second.states(3))[0] == 200
    assert fetched == [200]
    assert files(second.folder) == []
    first.close()


def test_a_file_damaged_here_is_read_from_the_shared_place(tmp_path: Path, shared: Path) -> None:
    kept = node(tmp_path, "node", folder_place(shared))
    kept.save(3, state(1.0), 100)
    assert kept.flush(10)
    flip_a_bit(files(kept.folder)[0])
    assert values(kept) == [(100, 1.0)]
    kept.close()


def test_a_place_that_fails_for_a_while_is_caught_up_with(
    tmp_path: Path, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shared.write_text("no folder")
    kept = node(tmp_path, "node", folder_place(shared))
    for images in (100, 200, 300):
        began_s = time.monotonic()
        kept.save(3, state(images), images)
        assert time.monotonic() - began_s < SAVE_S
    assert not kept.flush(2)
    assert [images for images, _ in values(kept)] == [300, 200]
    told = warnings(caplog)
    assert len(told) == 2, "one by the mirror, one by the reader"
    assert any(line.startswith("checkpoints stay on this machine for now") for line in told)
    assert any(line.endswith("; those on this machine are used") for line in told)
    assert "again" not in caplog.text
    shared.unlink()
    assert kept.flush(10)
    assert [int(path.name.split("-")[0]) for path in files(shared)] == [300]
    assert caplog.text.count("checkpoints are copied for other nodes again") == 1
    kept.close()


class Hanging(FsspecPlace):
    """A place that answers when it is let."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.as_uri(), UUID)
        self.let = threading.Event()
        self.copied: list[int] = []

    def names(self, trial: str) -> list[str]:
        self.let.wait()
        return super().names(trial)

    def put(self, trial: str, path: Path) -> None:
        self.copied.append(int(path.name.split("-")[0]))
        self.let.wait()
        super().put(trial, path)


def test_nobody_waits_for_a_place_that_hangs(
    tmp_path: Path,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(checkpoints, "LIST_TIMEOUT_S", 0.2)
    place = Hanging(shared)
    kept = node(tmp_path, "node", place)
    began_s = time.monotonic()
    for images in (100, 200, 300, 400):
        kept.save(3, state(images), images)
        while not place.copied:
            time.sleep(0.01)
    assert not kept.flush(0.2)
    assert [images for images, _ in values(kept)] == [400, 300]
    assert time.monotonic() - began_s < 4 * SAVE_S
    (line,) = warnings(caplog)
    assert "no answer within 0.2 s" in line
    place.let.set()
    assert kept.flush(10)
    assert place.copied in ([100, 400], [100, 400, 400]), "the newest wins"
    kept.close()


def test_a_place_that_breaks_off_is_told_of_once(
    tmp_path: Path, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(FsspecPlace):
        def get(self, *_: object) -> Path:
            raise PlaceError("broken off")

    first = node(tmp_path, "first", folder_place(shared))
    for images in (100, 200):
        first.save(3, state(images), images)
        assert first.flush(10)
    first.close()
    second = node(tmp_path, "second", Broken(shared.as_uri(), UUID))
    assert values(second) == []
    assert warnings(caplog) == [
        "trial 3: checkpoints for all nodes cannot be read: broken off; the trial starts afresh"
    ]


class Shaky(FsspecPlace):
    """Does not answer the first `failures` questions."""

    failures = 2

    def names(self, trial: str) -> list[str]:
        self._fail()
        return super().names(trial)

    def get(self, trial: str, name: str, to: Path) -> Path:
        self._fail()
        return super().get(trial, name, to)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise PlaceError("away for a moment")


@pytest.fixture
def saved_elsewhere(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Checkpoints]:
    """On another node than that which saved the trial at 200 images; its place is shaky."""
    monkeypatch.setattr(place_module, "FIRST_WAIT_S", 0.05)
    first = node(tmp_path, "first", folder_place(shared))
    first.save(3, state(200), 200)
    assert first.flush(10)
    first.close()
    second = node(tmp_path, "second", Shaky(shared.as_uri(), UUID))
    yield second
    second.close()


def test_a_place_that_has_the_last_state_is_waited_for(
    saved_elsewhere: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    found = [images for images, _ in saved_elsewhere.states(3, images_saved=200)]
    assert found == [200]
    assert "cannot be read at present: away for a moment; tried again" in warnings(caplog)[0]


def test_nobody_waits_for_a_state_that_was_never_saved(saved_elsewhere: Checkpoints) -> None:
    assert list(saved_elsewhere.states(3, images_saved=0)) == []


def test_a_wait_for_a_place_ends_when_the_worker_is_to_leave(
    saved_elsewhere: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shaky, "failures", 10**9)
    began_s = time.monotonic()
    leaves = iter([False] * 3)
    assert list(saved_elsewhere.states(3, 200, lambda: next(leaves, True))) == []
    assert time.monotonic() - began_s < 5


def test_an_answer_that_does_not_come_holds_nobody_who_is_to_leave() -> None:
    began_s = time.monotonic()
    with pytest.raises(PlaceError, match="was to leave"):
        within(600, lambda: time.sleep(3), lambda: time.monotonic() - began_s > 0.2)
    assert time.monotonic() - began_s < 2


def test_a_state_that_is_deleted_while_it_is_copied_is_no_news(
    tmp_path: Path, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(FsspecPlace):
        def put(self, trial: str, path: Path) -> None:
            path.unlink()  # as where the trial ends meanwhile
            super().put(trial, path)

    kept = node(tmp_path, "node", Slow(shared.as_uri(), UUID))
    kept.save(3, state(100), 100)
    assert kept.flush(10)
    assert warnings(caplog) == []
    kept.close()


def test_an_mlflow_server_keeps_copies_among_the_artifacts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with MlflowServer(tmp_path, f"sqlite:///{tmp_path}/mlflow.db") as server:
        run = MlflowClient(tracking_uri=server.uri).create_run("0")
        place = ArtifactPlace(server.uri, run.info.run_id)
        first, second = node(tmp_path, "first", place), node(tmp_path, "second", place)
        for images in (100, 200, 300):
            first.save(3, state(images), images)
            first.save(30, state(1.0), images)
            assert first.flush(10)
        assert values(second) == [(300, 300.0), (200, 200.0)]
        assert len(files(tmp_path / "artifacts")) == 4

        second.discard(3)
        assert second.flush(10)
        assert place.names("trial-3") == []
        assert len(place.names("trial-30")) == 2
        place.delete("trial-3", "missing")
        second.sweep()
        assert second.flush(10)
        assert files(tmp_path / "artifacts") == []

        server.kill()
        began_s = time.monotonic()
        first.save(3, state(400.0), 400)
        assert time.monotonic() - began_s < SAVE_S
        assert not first.flush(0.5)
        assert values(second) == []
        first.close()
        second.close()
    assert len(warnings(caplog)) == 2
    assert capfd.readouterr() == ("", ""), "no progress bars"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "that is no URL"),
        ("s3:/bucket/folder", "that is no URL; write for example s3://"),
        ("user:hunter2@host:/folder", "that is no URL"),
        ("foo://user:hunter2@host/x", "unknown scheme; write for example s3://"),
        ("s3://bucket/folder", "Install s3fs"),
        ("sftp://user:hunter2@host/x", '"paramiko" to be installed'),
        ("sftp://user:hun/ter2@host/x", '"paramiko" to be installed'),
        ("file:///dev/null/x", "Not a directory"),
        ("http://user:hunter2@127.0.0.1:1/x", "Connect call failed"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_in_one_line(url: str, reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)) as caught:
        check_place(url)
    assert "\n" not in str(caught.value)
    assert not re.search("hun|ter2", str(caught.value))


def test_a_place_that_does_not_answer_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_places, "PROBE_TIMEOUT_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(InputError, match=r"no answer within 0\.3 s"):
            check_place(f"ftp://user:hunter2@127.0.0.1:{silent.getsockname()[1]}/x")


def test_a_good_place_is_left_as_it_was(shared: Path) -> None:
    check_place(shared.as_uri())
    check_place(str(shared))
    assert list(shared.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(closed_dir: Path) -> None:
    with pytest.raises(InputError, match="Permission denied"):
        check_place(closed_dir.as_uri())
