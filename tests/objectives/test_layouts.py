"""Workers × threads, with real processes on the subset of MNIST."""

from dataclasses import asdict

import pytest

from objectives.layouts import Layout, Probe, images_per_s, layouts
from tests.conftest import SUBSET, TINY

PROBE = Probe("vitbn", asdict(TINY), SUBSET, "", batch_size=20)


def test_each_core_goes_to_one_worker() -> None:
    assert layouts(1) == [Layout(1, 1)]
    assert [str(layout) for layout in layouts(6)] == ["1 × 6", "2 × 3", "3 × 2", "6 × 1"]


def test_two_processes_train_together() -> None:
    assert images_per_s(Layout(2, 1), PROBE, 0.2) > 0


def test_a_process_that_fails_says_why() -> None:
    broken = Probe("vitbn", {}, "idx:/nowhere", "", batch_size=20)
    with pytest.raises(RuntimeError, match="/nowhere"):
        images_per_s(Layout(1, 1), broken, 0.2)
