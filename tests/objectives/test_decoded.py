"""Image files are decoded once, whole or not at all; broken ones are named or left out."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.switches import ImageShape
from objectives import decoded as module
from objectives.data import load_search_data, load_test
from objectives.data_options import DataOptions
from objectives.datasets import Dataset, dataset, shape_of
from objectives.errors import DataError
from objectives.images import Images
from tests.objectives.made_images import image_folder, pixels, save_image, tiny_imagenet


def source(root: Path, cache: Path, size: int | None = None, skip: bool = False) -> Dataset:
    return dataset(f"folder:{root}", cache, DataOptions(size, skip))


def read(root: Path, cache: Path, train: bool = True, **options: int | bool) -> Images:
    found = source(root, cache, **options)  # type: ignore[arg-type]
    return found.read(found.fetch(), train)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "set")


def test_pixels_are_those_of_the_files(root: Path, tmp_path: Path) -> None:
    found = read(root, tmp_path, train=False)
    assert found.images.shape == (12, 3, 20, 20)
    assert found.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert not found.is_shuffled
    expected = pixels(1, 1000, 20).transpose(2, 0, 1)
    assert np.array_equal(found.images[4].numpy(), expected)


def test_grey_wide_and_transparent_images_become_square_rgb(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "set", per_class=1)
    save_image(root / "train" / "class-0" / "wide.png", 0, 5, 30, 70)
    Image.new("L", (40, 40), 100).save(root / "train" / "class-1" / "grey.png")
    Image.new("RGBA", (25, 50), (10, 20, 30, 128)).save(root / "train" / "class-2" / "alpha.png")
    found = read(root, tmp_path, size=16)
    assert found.images.shape == (6, 3, 16, 16)
    grey = found.images[(found.images == 100).flatten(1).all(dim=1)]
    assert len(grey) == 1


def test_training_images_lie_in_the_order_of_the_split(root: Path, tmp_path: Path) -> None:
    """So that train and validation are parts of one mapped file."""
    data = load_search_data(source(root, tmp_path))
    assert (len(data.train), len(data.validation)) == (44, 4)
    assert len(set(data.validation.labels.tolist())) > 1
    again = load_search_data(source(root, tmp_path))
    assert torch.equal(again.train.images, data.train.images)
    base = data.train.images.untyped_storage().data_ptr()
    assert data.validation.images.untyped_storage().data_ptr() == base


def test_files_are_decoded_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(root, tmp_path)
    monkeypatch.setattr(module, "_pixels", None)
    second = read(root, tmp_path)
    assert torch.equal(first.images, second.images)
    assert first.checksum == second.checksum


def test_a_changed_file_is_decoded_anew_and_the_old_cache_goes(root: Path, tmp_path: Path) -> None:
    before = read(root, tmp_path)
    save_image(root / "train" / "class-2" / "3.png", 2, 77, 20)
    after = read(root, tmp_path)
    assert after.checksum != before.checksum
    caches = list((tmp_path / "datasets" / "decoded").glob("*train*/*/about.json"))
    assert len(caches) == 1


def test_two_sizes_live_side_by_side(root: Path, tmp_path: Path) -> None:
    assert read(root, tmp_path, size=8).images.shape[-1] == 8
    assert read(root, tmp_path).images.shape[-1] == 20
    caches = list((tmp_path / "datasets" / "decoded").glob("*train*/*/about.json"))
    assert len(caches) == 2


def test_both_halves_have_the_size_of_the_first_readable_training_image(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "set")
    (root / "train" / "class-0" / "0.png").write_bytes(b"broken")
    save_image(root / "val" / "class-0" / "0.png", 0, 0, 30, 70)
    assert read(root, tmp_path, skip=True).images.shape[-1] == 20
    assert read(root, tmp_path, train=False).images.shape[-1] == 20


def test_with_and_without_broken_images_live_side_by_side(root: Path, tmp_path: Path) -> None:
    BREAKAGES["cut"](root / "train" / "class-0" / "1.png")
    read(root, tmp_path, skip=True)
    (root / "train" / "class-0" / "1.png").unlink()
    read(root, tmp_path)
    read(root, tmp_path, skip=True)
    caches = list((tmp_path / "datasets" / "decoded").glob("*train*/*/about.json"))
    assert len(caches) == 2


def test_two_processes_decode_once(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DECODE, str(root), str(tmp_path), "0.05"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].count("decoding") for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(said) == [0, 48]


def test_the_shape_is_known_without_decoding(root: Path, tmp_path: Path) -> None:
    shape = shape_of(f"folder:{root}", tmp_path, DataOptions())
    assert shape == ImageShape(channels=3, size=20, classes=3)
    assert not (tmp_path / "datasets").exists()
    assert shape_of("imagenet", tmp_path, DataOptions(64)) == ImageShape(3, 64, 1000)


def test_an_image_that_is_too_large_to_be_meant_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.raises(DataError, match=r"broken images: .*decompression bomb"):
        read(root, tmp_path)


def test_the_checksum_is_of_contents_not_of_places_or_times(root: Path, tmp_path: Path) -> None:
    first = read(root, tmp_path / "a")
    moved = image_folder(tmp_path / "elsewhere")
    os.utime(moved / "train" / "class-0" / "0.png", (1, 1))
    assert read(moved, tmp_path / "b").checksum == first.checksum


BREAKAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404</html>"),
}


@pytest.mark.parametrize("how", BREAKAGES)
def test_broken_images_are_named_and_nothing_is_kept(root: Path, tmp_path: Path, how: str) -> None:
    for name in ("class-0/1.png", "class-1/2.png"):
        BREAKAGES[how](root / "train" / name)
    with pytest.raises(DataError) as refused:
        read(root, tmp_path)
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith("broken images: ")
    for name in ("class-0/1.png", "class-1/2.png"):
        assert str(root / "train" / name) in message
    assert "--skip-broken" in message
    left = [path for path in (tmp_path / "datasets").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["decoding.lock"]


def test_broken_images_are_left_out_on_request(root: Path, tmp_path: Path) -> None:
    BREAKAGES["cut"](root / "train" / "class-0" / "1.png")
    found = read(root, tmp_path, skip=True)
    assert len(found.labels) == 47
    assert found.checksum != read(image_folder(tmp_path / "whole"), tmp_path).checksum


def test_nothing_but_broken_images_is_refused(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "set", per_class=1)
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the images"):
        read(root, tmp_path, skip=True)


def test_a_disk_without_space_is_told_before_decoding(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE_BYTES", 1 << 60)
    with pytest.raises(DataError, match=r"48 images of 20 pixels need 0.0 GB in .*BNVIT_DATA_DIR"):
        read(root, tmp_path)


DECODE = """
import os, sys, time
from pathlib import Path
from objectives import decoded
from objectives.datasets import dataset
plain = decoded._pixels
def slow(path, size):
    os.write(1, b"decoding\\n")  # whole, whichever threads write
    time.sleep(float(sys.argv[3]))
    return plain(path, size)
decoded._pixels = slow
source = dataset("folder:" + sys.argv[1], Path(sys.argv[2]))
source.read(source.fetch(), True)
"""


def test_a_killed_decoding_leaves_nothing_that_passes(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DECODE, str(root), str(tmp_path), "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "decoding\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    cache = tmp_path / "datasets" / "decoded"
    assert not list(cache.rglob("about.json"))
    assert list(cache.glob("*/part-*"))
    assert len(read(root, tmp_path).labels) == 48
    assert not list(cache.glob("*/part-*"))


def test_tiny_imagenet_end_to_end(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny-imagenet-200")
    found = dataset(f"tiny-imagenet:{root}", tmp_path)
    data = load_search_data(found)
    assert (data.shape.size, data.shape.classes, len(data.train)) == (64, 3, 44)
    test = load_test(found, data.train)
    assert len(test) == 16
    # A class is told by its colour, in both halves alike.
    for split in (data.train, test):
        colours = split.images.float().mean(dim=(2, 3)).argmax(dim=1)
        assert torch.equal(colours, split.labels)
