"""Batches come as they are wanted, whether the images lie on the device or elsewhere."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch

from objectives.data import SearchData
from objectives.evaluation import evaluate
from objectives.feed import AHEAD, feed, in_order
from objectives.images import Split, as_pixels, channel_statistics, resized
from objectives.order import batches
from objectives.training import train
from tests.conftest import CPU
from tests.objectives.tiny import new_run, rungs, untimed


def elsewhere(data: SearchData) -> SearchData:
    """The same data, brought to the device batch by batch."""
    train_, validation = (replace(s, is_loaded=False) for s in (data.train, data.validation))
    return replace(data, train=train_, validation=validation)


def test_both_ways_give_the_same_batches(subset: SearchData) -> None:
    orders = [batches(917, 50, 3, 0, CPU) for _ in range(2)]
    splits = (subset.train, replace(subset.train, is_loaded=False))
    first, second = (islice(feed(s, o), 25) for s, o in zip(splits, orders, strict=True))
    for (pixels, labels), (others, other_labels) in zip(first, second, strict=True):
        assert torch.equal(pixels, others)
        assert torch.equal(labels, other_labels)


def test_the_last_batches_are_not_lost(subset: SearchData) -> None:
    split = replace(subset.validation, is_loaded=False)
    counts = [len(labels) for _, labels in feed(split, in_order(83, 20))]
    assert counts == [20, 20, 20, 20, 3]


def test_training_and_evaluation_do_not_depend_on_where_the_images_lie(subset: SearchData) -> None:
    curves = []
    for data in (subset, elsewhere(subset)):
        run = new_run(subset)
        run.data = data
        curves.append([untimed(event) for event in rungs(train(run))])
    assert curves[0] == curves[1]
    model = new_run(subset).model
    split = replace(subset.validation, is_loaded=False)
    assert evaluate(model, split, 30) == evaluate(model, subset.validation, 30)


def test_a_few_batches_are_gathered_ahead_by_one_thread(subset: SearchData) -> None:
    taken: list[int] = []

    def order() -> Iterator[torch.Tensor]:
        for number in range(100):
            taken.append(number)
            yield torch.arange(10)

    before = threading.active_count()
    source = feed(replace(subset.train, is_loaded=False), order())
    next(source)
    assert len(taken) == AHEAD + 1
    assert threading.active_count() == before + 1
    source.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_data_larger_than_memory_allows_are_not_loaded(
    subset: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subset.to(CPU).train.is_loaded
    monkeypatch.setattr("objectives.data.memory_bytes", lambda _: 1_000_000)
    assert not subset.to(CPU).train.is_loaded
    monkeypatch.setattr("objectives.data.memory_bytes", lambda _: 1 << 40)
    assert subset.to(CPU).validation.is_loaded


def test_statistics_are_those_of_all_pixels_of_each_channel() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (5000, 3, 4, 4), dtype=torch.uint8)
    images[:, 1] //= 2
    mean, std = channel_statistics(images)
    pixels = images.double() / 255
    torch.testing.assert_close(
        mean.flatten().double(), pixels.mean(dim=(0, 2, 3)), rtol=1e-6, atol=0
    )
    expected = pixels.transpose(0, 1).flatten(1).std(dim=1, correction=0)
    torch.testing.assert_close(std.flatten().double(), expected, rtol=1e-6, atol=0)
    scaled = Split(images, torch.zeros(5000), mean, std).all_pixels()
    torch.testing.assert_close(scaled.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled.std(dim=(0, 2, 3)), torch.ones(3), rtol=1e-3, atol=0)


def test_without_statistics_pixels_stay_between_zero_and_one(subset: SearchData) -> None:
    assert torch.equal(subset.validation.all_pixels(), as_pixels(subset.validation.images))


def test_a_channel_of_one_value_does_not_divide_by_zero() -> None:
    images = torch.full((10, 1, 2, 2), 7, dtype=torch.uint8)
    mean, std = channel_statistics(images)
    assert torch.isfinite(Split(images, torch.zeros(10), mean, std).all_pixels()).all()


def test_resizing_keeps_flat_images_flat() -> None:
    images = torch.full((3, 2, 8, 8), 200, dtype=torch.uint8)
    assert torch.equal(resized(images, 5), torch.full((3, 2, 5, 5), 200, dtype=torch.uint8))
    assert resized(images, None) is images
    assert resized(images, 8) is images
