"""Rungs: an eighth of an epoch, growing fourfold, then the end."""

import json
from itertools import pairwise

import pytest

from models.errors import InputError
from objectives.recipe import epoch_rungs, search_rungs
from tests.objectives.tiny import CONFIG


@pytest.mark.parametrize(
    ("train_images", "epochs", "rungs"),
    [
        (55_000, 3, (6_875, 27_500, 110_000, 165_000)),
        (55_000, 1, (6_875, 27_500, 55_000)),
        (917, 3, (114, 458, 1_834, 2_751)),
        (917, 2, (114, 458, 1_834)),
        (8, 1, (1, 4, 8)),
        (7, 1, (1, 4, 7)),
        (5, 3, (1, 4, 15)),
        (4, 1, (1, 4)),
        (1, 1, (1,)),
    ],
)
def test_search_rungs(train_images: int, epochs: int, rungs: tuple[int, ...]) -> None:
    assert search_rungs(train_images, epochs) == rungs


@pytest.mark.parametrize("epochs", [1, 2, 3, 30])
def test_rungs_rise_strictly_to_the_end_for_every_size(epochs: int) -> None:
    for train_images in range(1, 300):
        rungs = search_rungs(train_images, epochs)
        assert rungs[0] >= 1
        assert rungs[-1] == train_images * epochs
        assert all(low < high for low, high in pairwise(rungs))


def test_epoch_rungs_end_every_epoch() -> None:
    assert epoch_rungs(917, 3) == (917, 1_834, 2_751)


@pytest.mark.parametrize("epochs", [0, -1])
def test_a_long_run_without_an_epoch_is_refused(epochs: int) -> None:
    with pytest.raises(InputError, match=f"epochs {epochs} must be at least 1"):
        epoch_rungs(917, epochs)


def test_a_config_is_plain_values() -> None:
    values = json.loads(json.dumps(CONFIG.as_dict()))
    assert values["lr"] == CONFIG.lr
    assert values["switches"]["dim"] == CONFIG.switches.dim
    assert values["rungs"] == list(CONFIG.rungs)
