"""The order of training images: permutations, full batches, any position reached again."""

from itertools import islice, pairwise

import pytest
import torch

from objectives.order import batches
from tests.conftest import CPU


def stream(images: int, batch_size: int, count: int, seed: int = 0, start: int = 0) -> list[int]:
    """The indices of the first `count` batches from position `start`."""
    taken = list(islice(batches(images, batch_size, seed, start, CPU), count))
    assert {tuple(batch.shape) for batch in taken} == {(batch_size,)}
    assert {batch.dtype for batch in taken} == {torch.int64}
    return torch.cat(taken).tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 20, 50])
def test_each_epoch_is_a_permutation_and_batches_run_across_the_seams(batch_size: int) -> None:
    indices = stream(20, batch_size, 140 // batch_size)
    epochs = [indices[first : first + 20] for first in range(0, 20 * (len(indices) // 20), 20)]
    assert len(epochs) >= 5
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert all(one != next_one for one, next_one in pairwise(epochs))


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    assert stream(20, 7, 20) == stream(20, 10, 14) == stream(20, 35, 4)


@pytest.mark.parametrize("position", [0, 7, 13, 20, 21, 40, 63])
def test_starting_at_a_position_goes_on_from_there(position: int) -> None:
    whole = stream(20, 7, 20)
    assert stream(20, 7, 10, start=position) == whole[position : position + 70]


def test_seeds_give_different_orders_and_the_same_seed_the_same() -> None:
    orders = [stream(50, 25, 4, seed) for seed in (0, 1, 2, 10_000)]
    assert stream(50, 25, 4, 1) == orders[1]
    assert len({tuple(order) for order in orders}) == 4
    epochs = {tuple(order[half : half + 50]) for order in orders for half in (0, 50)}
    assert len(epochs) == 8, "no epoch of one seed is another's"


def test_the_random_state_of_the_process_is_neither_used_nor_changed() -> None:
    state = torch.get_rng_state()
    first = stream(50, 25, 4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert stream(50, 25, 4) == first
