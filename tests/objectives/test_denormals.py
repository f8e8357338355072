"""Denormals: found, flushed, and the thread left as it was."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from objectives import stretch
from objectives.data import SearchData
from objectives.denormals import FLUSHED, UNFLUSHED, flushing, is_flushing, one_thread, slowdown
from objectives.speed import Goal
from tests.objectives.tiny import CONFIG

QUICK = Goal(half_width=0.5, most_rounds=15, sample_s=0.001, kernel_s=0.05)


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short races; the thread is left as it was, whatever a test does to it."""
    monkeypatch.setattr(stretch, "WARM_UP_S", 0.01)
    before = is_flushing()
    yield
    torch.set_flush_denormal(before)


@pytest.mark.parametrize("flush", [False, True])
def test_the_setting_is_known_and_put_back(flush: bool) -> None:
    torch.set_flush_denormal(flush)
    for on in (False, True):
        with flushing(on):
            assert is_flushing() is on
        assert is_flushing() is flush
    with pytest.raises(KeyError), flushing(not flush):
        raise KeyError
    assert is_flushing() is flush


def test_the_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_run_is_raced_against_itself_and_the_setting_put_back(subset: SearchData) -> None:
    torch.set_flush_denormal(True)
    found = slowdown(replace(CONFIG, lr=1e-3), subset, steps=5, goal=QUICK)
    assert is_flushing()
    assert [timing.name for timing in found.race.timings] == [UNFLUSHED, FLUSHED]
    assert (found.model, found.steps) == ("vitbn", 5)
    assert 0.0 < found.loss < 5.0
    ratio = found.ratio()
    assert 0.0 < ratio.low <= ratio.estimate <= ratio.high


def test_a_run_that_diverged_is_known(subset: SearchData) -> None:
    found = slowdown(replace(CONFIG, model="vit", lr=1e30), subset, steps=5, goal=QUICK)
    assert found.loss != found.loss


def test_denormals_are_zeros_where_they_are_flushed() -> None:
    for on in (False, True):
        with flushing(on):
            small = torch.full((16,), 1e-40) * 1.0
            assert int(small.count_nonzero()) == (0 if on else 16)
