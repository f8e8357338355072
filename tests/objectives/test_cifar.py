"""CIFAR in the format of its archives: read, checked, and never run."""

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from models.errors import InputError
from models.torchvision_import import datasets as torchvision_datasets
from objectives import cifar
from objectives.data import load_search_data, load_test
from objectives.data_options import DataOptions
from objectives.datasets import dataset
from objectives.errors import DataError
from tests.objectives.made_images import cifar_archive, cifar_batches


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("packed", [True, False])
def test_images_and_labels_are_those_of_the_batches(
    tmp_path: Path, name: str, packed: bool
) -> None:
    batches = cifar_batches(name, 12)
    archive = cifar_archive(tmp_path, name, batches)
    if not packed:
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path, filter="data")
        archive.unlink()
    images, labels = cifar.read(name, tmp_path, train=True)
    train = [batch for file, batch in batches.items() if file not in cifar.SETS[name].test]
    assert images.shape == (12 * len(train), 3, 32, 32)
    assert images.dtype == torch.uint8
    expected = np.concatenate([batch[b"data"] for batch in train])
    assert np.array_equal(images.reshape(len(images), -1).numpy(), expected)
    key = cifar.SETS[name].labels
    assert labels.tolist() == [label for batch in train for label in batch[key]]


def test_a_set_of_ones_own_is_searched_and_tested(tmp_path: Path) -> None:
    cifar_archive(tmp_path, "cifar10", cifar_batches("cifar10", 24))
    source = dataset(f"cifar10:{tmp_path}", Path())
    data = load_search_data(source)
    assert (data.shape.channels, data.shape.size, data.shape.classes) == (3, 32, 10)
    assert (len(data.train), len(data.validation)) == (110, 10)
    test = load_test(source, data.train)
    assert len(test) == 24
    assert test.mean is data.train.mean


def test_classes_are_those_of_the_set_whatever_labels_there_are(tmp_path: Path) -> None:
    cifar_archive(tmp_path, "cifar100", cifar_batches("cifar100", 24, classes=3))
    assert load_search_data(dataset(f"cifar100:{tmp_path}", Path())).shape.classes == 100


@pytest.mark.parametrize("size", [16, 48])
def test_images_are_scaled_on_request(tmp_path: Path, size: int) -> None:
    cifar_archive(tmp_path, "cifar10", cifar_batches("cifar10", 4))
    source = dataset(f"cifar10:{tmp_path}", Path(), DataOptions(image_size=size))
    data = load_search_data(source)
    assert data.shape.size == size
    assert data.train.images.shape[1:] == (3, size, size)
    original = load_search_data(dataset(f"cifar10:{tmp_path}", Path())).train.images
    assert data.train.images.float().mean() == pytest.approx(
        float(original.float().mean()), rel=0.02
    )


def test_a_batch_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(
        DataError, match=r"data_batch_1 cannot be read \(it would call posix.system"
    ):
        cifar.read("cifar10", tmp_path, train=True)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("damage", ["cut", "missing", "counts", "keys", "flipped"])
def test_a_damaged_batch_is_named(tmp_path: Path, damage: str) -> None:
    batches = cifar_batches("cifar10", 4)
    if damage == "missing":
        del batches["data_batch_3"]
    elif damage == "counts":
        batches["data_batch_3"][b"labels"].pop()
    elif damage == "keys":
        del batches["data_batch_3"][b"data"]
    archive = cifar_archive(tmp_path, "cifar10", batches)
    if damage == "cut":
        archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    if damage == "flipped":
        content = bytearray(archive.read_bytes())
        content[60:400] = bytes(340)
        archive.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_\d") as refused:
        cifar.read("cifar10", tmp_path, train=True)
    assert "\n" not in str(refused.value)


def test_a_folder_without_the_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no cifar-10-python.tar.gz and no cifar-10-batches-py in"):
        dataset(f"cifar10:{tmp_path}", Path()).fetch()


def test_a_download_that_fails_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise URLError("the mirror\nis down")

    monkeypatch.setattr(torchvision_datasets(), "CIFAR10", down)
    with pytest.raises(DataError) as refused:
        dataset("cifar10", tmp_path).fetch()
    folder = tmp_path / "datasets" / "cifar10"
    assert str(refused.value) == (
        f"CIFAR-10 could not be fetched; put cifar-10-python.tar.gz into {folder} yourself. "
        "Tried torchvision's mirror: <urlopen error the mirror is down>"
    )


def test_what_torchvision_downloads_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Downloads:
        """Leaves behind what torchvision's class does."""

        def __init__(self, root: str, download: bool) -> None:
            assert download
            archive = cifar_archive(Path(root), "cifar10", cifar_batches("cifar10", 4))
            with tarfile.open(archive) as tar:
                tar.extractall(root, filter="data")

    monkeypatch.setattr(torchvision_datasets(), "CIFAR10", Downloads)
    source = dataset("cifar10", tmp_path)
    folder = source.fetch()
    assert [path.name for path in folder.iterdir()] == ["cifar-10-batches-py"]
    assert len(load_search_data(source).train) == 19
    monkeypatch.setattr(torchvision_datasets(), "CIFAR10", None)
    assert source.fetch() == folder, "not downloaded again"


def test_skipping_broken_files_is_for_sets_of_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cifar10 has no image files of its own"):
        dataset("cifar10", tmp_path, DataOptions(skip_broken=True))


def test_arrays_of_older_and_newer_numpy_are_read() -> None:
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        dumped = pickle.dumps(np.arange(3), protocol=2).replace(b"numpy._core.multiarray", module)
        assert module in dumped
        assert cifar._Arrays(io.BytesIO(dumped), encoding="bytes").load().tolist() == [0, 1, 2]
