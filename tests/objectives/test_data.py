"""Data sets by name: split, checksum, limits, scaling."""

import importlib
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from models.errors import InputError
from models.switches import ImageShape
from models.torchvision_import import datasets
from objectives import idx
from objectives.data import SearchData, load_search_data, load_test
from objectives.datasets import KINDS, dataset
from objectives.errors import DataError
from objectives.images import Split, as_pixels
from tests.conftest import FIXTURES, SUBSET

FOLDER = FIXTURES / "mnist-subset"


def rows(split: Split) -> list[tuple[bytes, int]]:
    """Each image's content with its label."""
    pairs = zip(split.images, split.labels.tolist(), strict=True)
    return [(image.numpy().tobytes(), label) for image, label in pairs]


def load(folder: Path) -> SearchData:
    """The search data of the IDX files in `folder`."""
    return load_search_data(dataset(f"idx:{folder}", Path()))


def test_one_training_image_in_twelve_validates(subset: SearchData) -> None:
    assert (len(subset.train), len(subset.validation)) == (917, 83)
    assert subset.shape == ImageShape(channels=1, size=28, classes=10)


def test_images_are_bytes_with_a_channel_and_labels_whole_numbers(subset: SearchData) -> None:
    for split, count in ((subset.train, 917), (subset.validation, 83)):
        assert split.images.shape == (count, 1, 28, 28)
        assert split.labels.shape == (count,)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert set(split.labels.tolist()) == set(range(10))


def test_train_and_validation_are_disjoint_and_complete(subset: SearchData) -> None:
    everything = rows(Split(*idx.read(FOLDER, train=True)))
    train, validation = Counter(rows(subset.train)), Counter(rows(subset.validation))
    assert not train & validation
    assert train + validation == Counter(everything)


def test_the_split_is_shuffled_and_always_the_same(subset: SearchData) -> None:
    torch.manual_seed(123)
    again = load(FOLDER)
    assert torch.equal(again.train.images, subset.train.images)
    assert torch.equal(again.train.labels, subset.train.labels)
    assert torch.equal(again.validation.images, subset.validation.images)
    stored = rows(Split(*idx.read(FOLDER, train=True)))
    assert rows(subset.validation) != stored[:83]
    assert rows(subset.validation) != stored[-83:]


def test_splitting_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    load(FOLDER)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("file", "position"),
    [
        ("train-images-idx3-ubyte", 16 + 28 * 28 * 700 + 300),
        ("train-labels-idx1-ubyte", 8 + 999),
    ],
)
def test_the_checksum_changes_with_one_pixel_or_label(
    subset: SearchData, tmp_path: Path, file: str, position: int
) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "copy"))
    assert load(folder).checksum == subset.checksum
    content = bytearray((folder / file).read_bytes())
    content[position] ^= 1
    (folder / file).write_bytes(content)
    assert load(folder).checksum != subset.checksum


def test_a_search_can_be_limited_to_the_first_training_images(subset: SearchData) -> None:
    few = subset.limited(100)
    assert torch.equal(few.train.images, subset.train.images[:100])
    assert torch.equal(few.train.labels, subset.train.labels[:100])
    assert few.validation is subset.validation
    assert (few.shape, few.checksum) == (subset.shape, subset.checksum)
    assert subset.limited(None) is subset
    assert len(subset.limited(917).train) == 917


@pytest.mark.parametrize("count", [0, -5, 918])
def test_a_limit_outside_the_train_split_is_refused(subset: SearchData, count: int) -> None:
    with pytest.raises(InputError, match=rf"train images {count} must lie between 1 and 917"):
        subset.limited(count)


def test_the_test_images_are_the_other_files(subset: SearchData) -> None:
    test = load_test(dataset(SUBSET, Path()), subset.train)
    assert len(test) == 500
    assert test.images.shape == (500, 1, 28, 28)
    seen = Counter(rows(subset.train)) + Counter(rows(subset.validation))
    assert not Counter(rows(test)) & seen


def test_data_moves_to_a_device_whole(subset: SearchData) -> None:
    moved = subset.to(torch.device("meta"))
    for split in (moved.train, moved.validation):
        assert split.images.is_meta
        assert split.labels.is_meta
    assert (moved.shape, moved.checksum) == (subset.shape, subset.checksum)


def test_pixels_are_scaled_as_torchvision_scales_them(subset: SearchData) -> None:
    datasets()  # helps torchvision where it needs help
    transforms = importlib.import_module("torchvision.transforms")
    every_value = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    for image in (every_value, subset.train.images[:1]):
        theirs = transforms.ToTensor()(image[0, 0].numpy())
        assert torch.equal(as_pixels(image)[0], theirs)
    assert as_pixels(every_value).min() == 0.0
    assert as_pixels(every_value).max() == 1.0


def test_scaling_leaves_the_stored_images_as_they_are(subset: SearchData) -> None:
    before = subset.validation.images.clone()
    as_pixels(subset.validation.images)
    assert torch.equal(subset.validation.images, before)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("mnits", "; did you mean 'mnist'?"),
        ("cifra10", "; did you mean 'cifar10'?"),
        ("idx:", f"; known: {', '.join(KINDS)}"),
    ],
)
def test_an_unknown_data_set_suggests_the_known_ones(name: str, end: str) -> None:
    with pytest.raises(InputError) as refused:
        dataset(name, Path())
    assert str(refused.value) == f"unknown data set '{name}'{end}"


def test_naming_a_data_set_does_not_fetch_it(tmp_path: Path) -> None:
    dataset("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_to_split_are_refused(tmp_path: Path) -> None:
    images = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (11, 2, 2)) + bytes(44)
    labels = b"\0\0\x08\x01" + (11).to_bytes(4, "big") + bytes(11)
    for half in ("train", "t10k"):
        (tmp_path / f"{half}-images-idx3-ubyte").write_bytes(images)
        (tmp_path / f"{half}-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataError, match="11 training images are too few to split"):
        load(tmp_path)
