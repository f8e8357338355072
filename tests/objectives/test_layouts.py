"""Workers × threads, with real processes on the subset of MNIST."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from objectives.layout_probe import Probe
from objectives.layouts import Layout, images_per_s, layouts
from tests.conftest import SUBSET, TINY

PROBE = Probe("vitbn", asdict(TINY), SUBSET, "", batch_size=20)


def test_each_core_goes_to_one_worker() -> None:
    assert layouts(1) == [Layout(1, 1)]
    assert [str(layout) for layout in layouts(6)] == ["1 × 6", "2 × 3", "3 × 2", "6 × 1"]


def test_two_processes_train_together() -> None:
    assert images_per_s(Layout(2, 1), PROBE, 0.2) > 0


def test_paths_are_of_where_it_is_called_and_packages_are_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, _, folder = SUBSET.partition(":")
    (tmp_path / "images").symlink_to(folder)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise AssertionError")
    monkeypatch.chdir(tmp_path)
    assert images_per_s(Layout(1, 1), replace(PROBE, dataset=f"{kind}:images"), 0.1) > 0


def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(RuntimeError, match=r"it took longer than 0\.2 s"):
        images_per_s(Layout(2, 1), PROBE, 60.0, limit_s=0.2)


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="/nowhere"):
        images_per_s(Layout(1, 1), replace(PROBE, dataset="idx:/nowhere"), 0.2)
