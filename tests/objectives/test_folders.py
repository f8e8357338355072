"""Folders of images in their real layouts, and what is wrong with those that are not."""

import shutil
from pathlib import Path

import pytest

from objectives.datasets import dataset
from objectives.errors import DataError
from objectives.folders import list_folder, list_tiny
from tests.objectives.made_images import WNIDS, image_folder, save_image, tiny_imagenet


def refusal(name: str, root: Path, train: bool = True) -> str:
    """What reading the data set says, in one line."""
    source = dataset(f"{name}:{root}", root / "cache")
    with pytest.raises(DataError) as refused:
        source.read(source.fetch(), train)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_image_folder_is_listed_by_class(tmp_path: Path) -> None:
    root = image_folder(tmp_path, per_class=4)
    (root / "train" / "class-0" / "notes.txt").write_text("no image")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    save_image(root / "train" / "class-1" / "deeper" / "more.JPG", 1, 9, 20)
    listing = list_folder(root, train=True)
    assert (len(listing.files), listing.classes) == (13, 3)
    assert [listing.labels.count(label) for label in range(3)] == [4, 5, 4]
    by_file = dict(zip(listing.files, listing.labels, strict=True))
    assert by_file["class-1/deeper/more.JPG"] == 1
    test = list_folder(root, train=False)
    assert test.labels == (0, 1, 2)
    assert all(path.is_file() for path in test.paths())


@pytest.mark.parametrize("half", ["val", "validation", "test"])
def test_the_other_half_has_several_names(tmp_path: Path, half: str) -> None:
    root = image_folder(tmp_path, per_class=2)
    (root / "val").rename(root / half)
    assert list_folder(root, train=False).root == root / half


def test_classes_are_numbered_by_the_train_half(tmp_path: Path) -> None:
    root = image_folder(tmp_path, per_class=2)
    shutil.rmtree(root / "val" / "class-0")
    listing = list_folder(root, train=False)
    assert (listing.labels, listing.classes) == ((1, 2), 3)


def test_tiny_imagenet_is_listed_in_its_own_layout(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny", per_class=4)
    train = list_tiny(root, train=True)
    assert (len(train.files), train.classes) == (12, 3)
    for file, label in zip(train.files, train.labels, strict=True):
        assert file.startswith(f"{WNIDS[label]}/images/")
    validation = list_tiny(root, train=False)
    annotated = dict(zip(validation.files, validation.labels, strict=True))
    assert annotated == {
        "images/val_0.JPEG": 0,
        "images/val_1.JPEG": 2,
        "images/val_2.JPEG": 1,
        "images/val_3.JPEG": 0,
    }


def test_validation_annotations_need_no_train_folder(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny", per_class=4)
    before = list_tiny(root, train=False)
    shutil.rmtree(root / "train")
    assert list_tiny(root, train=False) == before


def test_a_validation_half_sorted_into_classes_is_read_too(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny", per_class=4)
    (root / "val" / "val_annotations.txt").unlink()
    for label, wnid in enumerate(WNIDS):
        save_image(root / "val" / wnid / "a.JPEG", label, 0, 64)
    assert list_tiny(root, train=False).labels == (0, 1, 2)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path, per_class=2)
    shutil.rmtree(root / "train" / "class-1")
    (root / "train" / "class-1").mkdir()
    assert f"{root / 'train'} has empty classes: class-1; fill or remove" in refusal("folder", root)


@pytest.mark.parametrize(
    ("archive", "kind"), [("tiny-imagenet-200.zip", "tiny-imagenet"), ("train.tar", "imagenet")]
)
def test_what_is_not_unpacked_is_said_so(tmp_path: Path, archive: str, kind: str) -> None:
    (tmp_path / archive).write_bytes(b"PK")
    message = refusal(kind, tmp_path)
    assert message == f"{archive} in {tmp_path} is not unpacked; unpack it there"
    assert f"{tmp_path / archive} is not unpacked" in refusal(kind, tmp_path / archive)


def test_a_missing_half_or_folder_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "set", per_class=2)
    shutil.rmtree(root / "val")
    assert f"there is no {root / 'val'}" in refusal("folder", root, train=False)
    shutil.rmtree(root / "train")
    assert f"there is no {root / 'train'}" in refusal("folder", root)
    assert "there is no folder" in refusal("folder", tmp_path / "nowhere")


def test_classes_that_only_the_test_half_has_are_refused(tmp_path: Path) -> None:
    root = image_folder(tmp_path, per_class=2)
    save_image(root / "val" / "another" / "1.png", 0, 0, 20)
    assert "has classes that" in refusal("folder", root, train=False)
    assert "another" in refusal("folder", root, train=False)


def test_annotations_that_do_not_fit_are_named_by_line(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny", per_class=4)
    path = root / "val" / "val_annotations.txt"
    good = path.read_text()
    path.write_text(good + "val_9.JPEG\tn00000000\t0\t0\t1\t1\n")
    assert "line 5: 'n00000000' is no class of wnids.txt" in refusal("tiny-imagenet", root, False)
    path.write_text(good + f"val_9.JPEG\t{WNIDS[0]}\t0\t0\t1\t1\n")
    assert "lacks images/val_9.JPEG" in refusal("tiny-imagenet", root, False)
    path.write_text("")
    assert "is empty" in refusal("tiny-imagenet", root, False)
    path.unlink()
    assert f"there is no {path}" in refusal("tiny-imagenet", root, False)


def test_tiny_imagenet_without_its_classes_is_refused(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny", per_class=4)
    shutil.rmtree(root / "train" / WNIDS[1])
    assert f"lacks {WNIDS[1]}, which wnids.txt names" in refusal("tiny-imagenet", root)
    (root / "wnids.txt").unlink()
    assert "wnids.txt; it names Tiny-ImageNet's classes" in refusal("tiny-imagenet", root)
