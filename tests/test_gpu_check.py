"""The GPU check, as far as it runs without a GPU."""

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from objectives import starting, training
from objectives.data import SearchData
from objectives.execution import PLAIN
from objectives.images import Split, as_pixels
from objectives.metrics import RungMetrics
from objectives.recipe import TrainConfig
from tests.conftest import CPU, SUBSET, TINY

# A folder of scripts, not a package.
sys.path.append(str(Path(__file__).parents[1] / "bench"))

import gpu_check

ROOT = Path(__file__).parents[1]
ABSENT = ("filelock", "optuna", "mlflow", "scipy", "typer", "rich", "psycopg", "sqlalchemy")
RUN_WITHOUT = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT!r}))  # None: importing it fails
sys.path.pop(0)  # -c puts the working folder there, a script its own
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.argv = ["bench/gpu_check.py", "--quick"]
runpy.run_path("bench/gpu_check.py", run_name="__main__")
"""
GOOD = gpu_check.Row("vitbn", 1e-6, "", 4.5, 22_000.0, True, 0.97, 310.0)


def tiny(model: str = "vitbn", rungs: tuple[int, ...] = (80, 160)) -> TrainConfig:
    config = TrainConfig(model, TINY, SUBSET, 1e-3, 8, rungs, train_images=900, seed=0)
    return replace(config, recalibration_images=50)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device it checks")
@pytest.mark.parametrize(
    "command", [["bench/gpu_check.py"], ["-c", RUN_WITHOUT]], ids=["script", "few packages"]
)
def test_without_cuda_it_says_so_and_succeeds(command: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "no CUDA device: nothing was checked\n"), run.stderr


@pytest.mark.parametrize("model", ["vit", "vitbnffn", "vitbn"])
def test_cpu_agrees_with_itself_through_a_resume(model: str, subset: SearchData) -> None:
    assert gpu_check.loss_difference(tiny(model), subset, CPU, PLAIN) == 0.0
    fast = gpu_check.loss_difference(tiny(model), subset, CPU)
    assert fast <= gpu_check.LOSS_TOLERANCE["float32"]
    bf16 = gpu_check.loss_difference(replace(tiny(model), precision="bf16"), subset, CPU)
    assert 1e-4 < bf16 <= gpu_check.LOSS_TOLERANCE["bf16"]


def test_first_losses_are_those_of_an_uninterrupted_run(subset: SearchData) -> None:
    config = tiny(rungs=(8 * gpu_check.FIRST_STEPS,))
    losses = gpu_check.first_losses(config, subset, CPU)
    (metrics,) = training.train(starting.start(config, subset, CPU))
    assert isinstance(metrics, RungMetrics)
    assert sum(losses) / len(losses) == pytest.approx(metrics.train_loss, rel=1e-12)


def test_divergence_is_an_infinite_difference(subset: SearchData) -> None:
    assert gpu_check.loss_difference(replace(tiny(), lr=1e30), subset, CPU) == math.inf


def test_short_run_is_evaluated_and_timed(subset: SearchData) -> None:
    accuracy, images_per_s = gpu_check.short_run(tiny(), subset, CPU)
    assert 0 <= accuracy <= 1
    assert images_per_s > 0


def test_short_run_that_diverges_gives_nan(subset: SearchData) -> None:
    results = gpu_check.short_run(replace(tiny(), lr=1e30), subset, CPU)
    assert all(math.isnan(result) for result in results)


class DebugMode:
    """Stands in for CUDA's debug mode, which needs a device: records what it was set to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set_to: list[str] = []
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", self.set_to.append)
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", self.value)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda _=None: None)

    def value(self) -> int:
        return 2 if self.set_to[-1:] == ["error"] else 0


def test_waiting_is_forbidden_between_warm_up_and_rung(
    subset: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = DebugMode(monkeypatch)
    assert gpu_check.first_sync(tiny(), subset, CPU) == ""
    assert mode.set_to == ["default"] * 4 + ["error"] * 24 + ["default"] * 2


def test_a_wait_inside_a_step_is_found_and_placed(
    subset: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = DebugMode(monkeypatch)

    def waiting(_: Split, images: torch.Tensor) -> torch.Tensor:
        torch.cuda.synchronize(CPU)
        return as_pixels(images)

    monkeypatch.setattr(Split, "pixels", waiting)
    place = gpu_check.first_sync(tiny(), subset, CPU)
    assert place.startswith("feed.py:")
    assert place.endswith(" after step 5")
    assert mode.set_to[-1] == "default"


@pytest.mark.parametrize("model", ["vit", "vitbnffn", "vitbn"])
def test_steps_read_no_value_before_the_rung(model: str, subset: SearchData) -> None:
    """On the meta device nothing has a value: reading one, as a wait on CUDA would, raises."""
    run = starting.start(tiny(model), subset, torch.device("meta"))
    with pytest.raises(RuntimeError, match="meta tensors"):
        list(training.train(run))
    assert run.images_seen == run.config.rungs[0]


class WallClock:
    """Stands in for CUDA's events."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at_s = time.perf_counter()

    def elapsed_time(self, later: "WallClock") -> float:
        return (later.at_s - self.at_s) * 1e3


def test_step_time_is_a_median_in_ms(subset: SearchData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", WallClock)
    began_s = time.perf_counter()
    step_ms = gpu_check.median_step_ms(tiny(), subset, CPU)
    assert 0 < step_ms < (time.perf_counter() - began_s) * 1e3 / 25


def test_row_stands_under_its_headings() -> None:
    assert str(GOOD).split() == ["vitbn", "1.0e-06", "4.50", "2.50", "22000", "0.9700", "310",
                                 "ok", "none"]  # fmt: skip
    ends = [gpu_check.HEADINGS.index(name) + len(name) for name in ("images/s", "peak MiB")]
    assert [str(GOOD)[:end].split()[-1] for end in ends] == ["22000", "310"]
    assert str(GOOD).index("ok") == gpu_check.HEADINGS.index("result")


@pytest.mark.parametrize(
    "change",
    [
        {"loss_difference": 1e-3},
        {"loss_difference": math.nan},
        {"sync": "order.py:37 after step 8"},
        {"val_accuracy": math.nan, "images_per_s": math.nan},
        {"val_accuracy": 0.1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_failed_check_fails_the_row(change: dict[str, float | str]) -> None:
    row = replace(GOOD, **change)  # type: ignore[arg-type]  # a mix of fields
    assert GOOD.ok
    assert not row.ok
    assert "FAILED" in str(row)
    assert row.sync in str(row)


def test_extrapolated_epoch_is_marked() -> None:
    assert "~2.50" in str(replace(GOOD, whole_epoch=False))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("bench", ["gpu_sharing", "gpu_speed"])
def test_without_a_gpu_a_line_says_that_nothing_was_done(bench: str) -> None:
    script = ROOT / "bench" / f"{bench}.py"
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("no CUDA device: nothing was ")
    assert not told.stderr
