"""Local IDX files: what is missing or damaged is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from objectives import idx
from objectives.data import load_search_data
from objectives.datasets import dataset
from objectives.errors import DataError
from tests.conftest import FIXTURES

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the subset, to be damaged."""
    return Path(shutil.copytree(FIXTURES / "mnist-subset", tmp_path / "copy"))


def refusal(folder: Path) -> str:
    """What is said of the training half in `folder`, on one line."""
    with pytest.raises(DataError) as refused:
        load_search_data(dataset(f"idx:{folder}", Path()))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_whole_files_pass(folder: Path) -> None:
    assert idx.check(folder) == folder
    images, labels = idx.read(folder, train=False)
    assert (len(images), len(labels)) == (500, 500)


def test_all_missing_files_are_named_with_their_folder(folder: Path) -> None:
    (folder / LABELS).unlink()
    (folder / "t10k-images-idx3-ubyte").unlink()
    message = refusal(folder)
    assert f"no {LABELS}, t10k-images-idx3-ubyte in {folder}" in message
    assert IMAGES not in message


def test_a_folder_that_does_not_exist_lacks_all_four(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nowhere")
    assert all(name in message for pair in idx.FILES.values() for name in pair)


def test_a_folder_that_may_not_be_entered_is_named(closed_dir: Path) -> None:
    assert f"{closed_dir} cannot be read" in refusal(closed_dir)


def cut(content: bytes) -> bytes:
    return content[:-1]


def cut_header(content: bytes) -> bytes:
    return content[:6]


def empty(_content: bytes) -> bytes:
    return b""


def text(_content: bytes) -> bytes:
    return b"<html>404 Not Found</html>"


def other_rank(content: bytes) -> bytes:
    return content[:3] + b"\x02" + content[4:]


@pytest.mark.parametrize("damage", [cut, cut_header, empty, text, other_rank])
@pytest.mark.parametrize("file", [IMAGES, LABELS])
def test_a_damaged_file_is_named(folder: Path, file: str, damage: Callable[[bytes], bytes]) -> None:
    (folder / file).write_bytes(damage((folder / file).read_bytes()))
    message = refusal(folder)
    assert str(folder) in message
    assert file in message
    assert dataset(f"idx:{folder}", Path()).read(folder, False), "the other half is whole"


@pytest.mark.parametrize("kind", [b"\x09", b"\x0a"])
@pytest.mark.parametrize("file", [IMAGES, LABELS])
def test_a_file_of_another_element_type_is_named(folder: Path, file: str, kind: bytes) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:2] + kind + content[3:])
    assert file in refusal(folder)


def test_images_and_labels_that_were_swapped_are_named(folder: Path) -> None:
    images = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes((folder / LABELS).read_bytes())
    (folder / LABELS).write_bytes(images)
    assert IMAGES in refusal(folder)


def test_counts_that_differ_are_told_with_both_files(folder: Path) -> None:
    shutil.copy(folder / "t10k-labels-idx1-ubyte", folder / LABELS)
    message = refusal(folder)
    assert f"{folder / IMAGES} has 1000 images" in message
    assert f"{folder / LABELS} 500" in message


def test_images_that_are_not_square_are_refused(folder: Path) -> None:
    content = (folder / IMAGES).read_bytes()
    sides = (14).to_bytes(4, "big") + (56).to_bytes(4, "big")
    (folder / IMAGES).write_bytes(content[:8] + sides + content[16:])
    assert "14×56 pixels are not square" in refusal(folder)
