"""Fetching MNIST once and whole, whatever happens meanwhile. Skipped where no source answers."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from objectives import mnist
from objectives.data import load_search_data, load_test
from objectives.datasets import dataset
from tests.conftest import new_data_dir
from tests.objectives.bad_sources import down, garbled

NO_SOURCE = 77  # exit status of a process that could reach no source

FETCH = f"""
import sys
from pathlib import Path
from objectives import mnist
from objectives.errors import DataError

def noted(source):
    def ask(temporary):
        print("asked a source", flush=True)
        return source(temporary)
    return ask

mnist._SOURCES = {{name: noted(source) for name, source in mnist._SOURCES.items()}}
try:
    mnist.fetch(Path(sys.argv[1]))
except DataError as error:
    print(error)
    sys.exit({NO_SOURCE} if "could not be fetched" in str(error) else 1)
"""

FETCH_HALF = """
import shutil, sys, time
from pathlib import Path
from objectives import mnist

def slow(temporary):
    files = temporary / "files"
    files.mkdir()
    first, second, *_ = mnist.MD5
    shutil.copy(Path(sys.argv[2]) / first, files)
    (files / second).write_bytes((Path(sys.argv[2]) / second).read_bytes()[:1000])
    print("half way", flush=True)
    time.sleep(100)
    return files

mnist._SOURCES = {"slow": slow}
mnist.fetch(Path(sys.argv[1]))
"""


def python(code: str, *arguments: Path) -> subprocess.Popen[str]:
    """A process running `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def is_whole(folder: Path) -> bool:
    """Whether the four files are there with the right content, and nothing else."""
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(mnist.MD5):
        return False
    digests = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in mnist.MD5}
    return digests == mnist.MD5


@pytest.fixture(scope="module")
def fetched() -> Iterator[Path]:
    """MNIST from the real sources, fetched by two processes at once into one empty folder."""
    with new_data_dir() as data_dir:
        folder = data_dir / "datasets" / "mnist"
        processes = [python(FETCH, folder) for _ in range(2)]
        said = [process.communicate()[0] for process in processes]
        statuses = [process.returncode for process in processes]
        if statuses == [NO_SOURCE, NO_SOURCE]:
            pytest.skip(said[0].splitlines()[-1])
        assert statuses == [0, 0], said
        assert sorted(map(bool, said)) == [False, True], "one fetches, the other waits for it"
        yield folder


@pytest.fixture
def copying(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """One source, which copies the fetched files; the list grows with each time it is asked."""
    asked: list[Path] = []

    def copy(temporary: Path) -> Path:
        asked.append(temporary)
        return Path(shutil.copytree(fetched, temporary / "files"))

    monkeypatch.setattr(mnist, "_SOURCES", {"a copy": copy})
    return asked


def test_two_processes_fetch_the_real_files_at_once(fetched: Path) -> None:
    assert is_whole(fetched)
    assert not list(fetched.parent.glob("fetching-*"))


def test_the_real_files_are_read_and_split(fetched: Path) -> None:
    source = dataset("mnist", fetched.parent.parent)
    data = load_search_data(source)
    assert (len(data.train), len(data.validation)) == (55_000, 5_000)
    assert len(load_test(source, data.train)) == 10_000


def test_files_that_are_there_are_not_fetched_again(fetched: Path, copying: list[Path]) -> None:
    assert mnist.fetch(fetched) == fetched
    assert copying == []


def test_a_killed_fetch_leaves_nothing_that_passes_and_the_next_one_repairs(
    fetched: Path, copying: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "datasets" / "mnist"
    process = python(FETCH_HALF, folder, fetched)
    assert process.stdout is not None
    assert process.stdout.readline() == "half way\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    assert not folder.exists()
    assert mnist._fault(mnist.MD5, folder)
    assert is_whole(mnist.fetch(folder))
    (temporary,) = copying
    assert temporary.parent == folder.parent, "on the same file system, so that one rename does"


@pytest.mark.parametrize("name", mnist.MD5)
def test_a_damaged_file_is_detected_and_replaced(
    fetched: Path, copying: list[Path], tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(fetched, tmp_path / "mnist"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    assert is_whole(mnist.fetch(folder))
    assert len(copying) == 1


def test_a_missing_file_is_fetched(fetched: Path, copying: list[Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fetched, tmp_path / "mnist"))
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert is_whole(mnist.fetch(folder))
    assert len(copying) == 1


def test_a_source_that_fails_or_garbles_is_followed_by_the_next(
    fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(temporary: Path) -> Path:
        return Path(shutil.copytree(fetched, temporary / "files"))

    monkeypatch.setattr(mnist, "_SOURCES", {"down": down, "garbled": garbled, "copy": copy})
    assert is_whole(mnist.fetch(tmp_path / "mnist"))
