"""Images that nobody took: the same every time, and learnable."""

from pathlib import Path

import pytest
import torch

from models.errors import InputError
from objectives import fake
from objectives.data import load_search_data
from objectives.datasets import dataset


def test_they_are_the_same_every_time_and_have_the_shape_asked_for() -> None:
    first, second = (fake.make("60x1x8x5", train=True) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert first.images.shape == (60, 1, 8, 8)
    assert (first.classes, first.checksum) == (5, "fake-60-1-8-5")


def test_the_other_half_has_other_images_of_the_same_patterns() -> None:
    train, test = (fake.make("200x3x8x5", train=half) for half in (True, False))
    assert len(test.labels) == 50
    means = torch.stack([train.images[train.labels == c].float().mean(dim=0) for c in range(5)])
    distances = (test.images[:, None].float() - means).flatten(2).norm(dim=2)
    assert torch.equal(distances.argmin(dim=1), test.labels)
    assert not torch.equal(train.images[:50], test.images)


@pytest.mark.parametrize(
    "text", ["x", "10x3x8", "0x3x8x5", "axbxcxd", "99999999x3x999x5", "12x3x32x1000000000"]
)
def test_what_makes_no_images_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"fake:{text} must be"):
        fake.make(text, train=True)


def test_it_is_searched_as_any_data_set() -> None:
    data = load_search_data(dataset("fake", Path()))
    assert (data.shape.channels, data.shape.size, data.shape.classes) == (3, 32, 10)
    assert (len(data.train), len(data.validation)) == (1100, 100)
