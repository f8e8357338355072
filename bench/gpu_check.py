"""Check training on a CUDA device: each model, each way of computing it, against the CPU.

And that no step waits for the device between rungs.

    make gpu-check          or    python bench/gpu_check.py [--data FOLDER] [--quick]

Hardware: one CUDA device; without one a single line says so and nothing is checked.
Expected time: with --quick 80 s on an H200.
Needs torch ≥ 2.11, torchvision, einops, timm and numpy, no more, and no installation.
"""

import argparse
import io
import math
import statistics
import sys
import traceback
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path
from unittest.mock import patch

import torch

# Not installed on most GPU machines: the packages lie beside bench/, where Python does not look.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import BnvitError
from models.registry import ARTICLE, variant
from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset
from objectives.execution import FAST, PLAIN, Execution
from objectives.precision import Precision
from objectives.recipe import TrainConfig
from objectives.run import WARM_UP_STEPS
from objectives.starting import start
from objectives.steps import PLAIN_STEPS
from objectives.training import train

SUBSET = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "mnist-subset"
BATCH_SIZE = 100  # images
LR = 1e-3
RESUMED_AFTER = 2  # steps
FIRST_STEPS = RESUMED_AFTER + PLAIN_STEPS + 3  # compared with the CPU's; the last are replayed
# Measured on CPU: rounding moves these losses by up to 7e-7; weights disturbed as much as TF32
# rounds them, by 3e-5 to 3e-4; bf16 moves them by up to 1.2e-3.
LOSS_TOLERANCE: dict[Precision, float] = {"float32": 2e-5, "bf16": 5e-3}
COMPARED_IMAGES = 250  # evaluated and recalibrated on after each of the first steps
SYNC_STEPS = 30
SYNC_EPOCH_IMAGES = 750  # short epochs: the guarded steps cross their seams too
TIMED_STEPS = 64  # the warm-up, twice WARM_UP_STEPS, included
WARM_UP_IMAGES = 1_000
EPOCH_IMAGES = 55_000  # MNIST's train split
MIN_ACCURACY = 0.5  # five times chance: the model has learned
GRAPHED = replace(FAST, graphed=True)
WAYS: dict[str, tuple[Execution, Precision]] = {
    "plain": (PLAIN, "float32"),
    "fast": (FAST, "float32"),
    "graph": (GRAPHED, "float32"),
    "bf16": (FAST, "bf16"),
    "bf16 graph": (GRAPHED, "bf16"),
}
HEADINGS = (
    f"{'model':19}  loss diff  step ms  epoch s  images/s  val accuracy  peak MiB  result  syncs"
)


@dataclass(frozen=True)
class Row:
    """One model's checks; NaN where its training diverged."""

    model: str
    loss_difference: float  # to the CPU's, the largest of the first steps
    sync: str  # where a step waited for the device; empty: none did
    step_ms: float
    images_per_s: float
    whole_epoch: bool  # timed on an epoch of MNIST, not on fewer or repeated images
    val_accuracy: float  # share in [0, 1]
    peak_mib: float  # held by tensors in training and evaluation, the data included
    precision: Precision = "float32"

    @property
    def ok(self) -> bool:
        """Whether every check passed; a NaN does not."""
        close = self.loss_difference <= LOSS_TOLERANCE[self.precision]
        return close and not self.sync and self.val_accuracy >= MIN_ACCURACY

    def __str__(self) -> str:
        epoch = f"{'' if self.whole_epoch else '~'}{EPOCH_IMAGES / self.images_per_s:.2f}"
        return (
            f"{self.model:19}  {self.loss_difference:9.1e}  {self.step_ms:7.2f}  {epoch:>7}"
            f"  {self.images_per_s:8.0f}  {self.val_accuracy:12.4f}  {self.peak_mib:8.0f}"
            f"  {'ok' if self.ok else 'FAILED':6}  {self.sync or 'none'}"
        )


def first_losses(
    config: TrainConfig, data: SearchData, device: torch.device, execution: Execution = FAST
) -> list[float]:
    """Losses of the first steps, a rung each; the run is saved and resumed on the way."""
    rungs = tuple(config.batch_size * step for step in range(1, FIRST_STEPS + 1))
    config = replace(config, rungs=rungs, recalibration_images=COMPARED_IMAGES)
    data = replace(data, validation=data.validation.first(COMPARED_IMAGES))
    run, stored = start(config, data, device, execution), io.BytesIO()
    list(islice(train(run), RESUMED_AFTER))
    torch.save(run.state_dict(), stored)
    stored.seek(0)
    resumed = start(config, data, device, execution)
    resumed.load_state_dict(torch.load(stored, map_location="cpu", weights_only=True))
    list(train(resumed))
    return [metrics.train_loss for metrics in resumed.curve]


def loss_difference(
    config: TrainConfig, data: SearchData, device: torch.device, execution: Execution = FAST
) -> float:
    """The largest difference of the first losses to the CPU's, which computes plainly in float32.

    Infinite if one run diverged.
    """
    losses = first_losses(config, data, device, execution)
    plain = replace(config, precision="float32")
    expected = first_losses(plain, data, torch.device("cpu"), PLAIN)
    if not len(losses) == len(expected) == FIRST_STEPS:
        return math.inf
    return max(abs(loss - other) for loss, other in zip(losses, expected, strict=True))


def first_sync(
    config: TrainConfig, data: SearchData, device: torch.device, execution: Execution = FAST
) -> str:
    """Where a step between two rungs waits for the device; empty if none does.

    The training loop's own `pause` switches torch's debug mode on after the warm-up and off
    before the rung, where waiting is meant. The mode sees reads of device values and blocking
    copies, but not `torch.cuda.synchronize`, which refuses here while the mode is on.
    """
    rungs = (SYNC_STEPS * config.batch_size,)
    run = start(
        replace(config, rungs=rungs, train_images=SYNC_EPOCH_IMAGES), data, device, execution
    )

    def guard() -> bool:
        inside = WARM_UP_STEPS <= run.step < SYNC_STEPS - 1
        torch.cuda.set_sync_debug_mode("error" if inside else "default")
        return False

    wait = torch.cuda.synchronize

    def refuse(device: torch.device | None = None) -> None:
        if torch.cuda.get_sync_debug_mode():
            raise RuntimeError("called a synchronizing function")
        wait(device)

    try:
        with patch.object(torch.cuda, "synchronize", refuse):
            list(train(run, guard))
    except RuntimeError as error:
        if "called a synchronizing" not in str(error):
            raise
        return f"{_place(error)} after step {run.step}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def _place(error: RuntimeError) -> str:
    """File and line of the innermost frame in our packages."""
    frames = [(Path(f.filename), f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    return [f"{p.name}:{n}" for p, n in frames if p.parent.name in ("models", "objectives")][-1]


def median_step_ms(
    config: TrainConfig, data: SearchData, device: torch.device, execution: Execution = FAST
) -> float:
    """Median time from one step's end to the next's by the device's clock, without warm-up."""
    run = start(replace(config, rungs=(TIMED_STEPS * config.batch_size,)), data, device, execution)
    ends: list[torch.cuda.Event] = []

    def mark() -> bool:
        ends.append(torch.cuda.Event(enable_timing=True))
        ends[-1].record()
        return False

    list(train(run, mark))  # its rung waits for the last step, hence for all events
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(ends[2 * WARM_UP_STEPS :]))


def short_run(
    config: TrainConfig, data: SearchData, device: torch.device, execution: Execution = FAST
) -> tuple[float, float]:
    """Last validation accuracy, and images/s since the rung before; NaN if training diverged."""
    run = start(config, data, device, execution)
    list(train(run))
    if len(run.curve) < len(config.rungs):
        return math.nan, math.nan
    return run.curve[-1].val_accuracy, run.curve[-1].train_images_per_s or math.nan


def check(model: str, way: str, data: SearchData, device: torch.device, images: int) -> Row:
    """All checks of one model, with default switches; the first rung of `short_run` warms up."""
    rungs = (WARM_UP_IMAGES, WARM_UP_IMAGES + images)
    switches = variant(model).resolved(None, data.shape)
    execution, precision = WAYS[way]
    config = TrainConfig(model, switches, "idx", LR, BATCH_SIZE, rungs, len(data.train), 0)
    config = replace(config, precision=precision)
    difference = loss_difference(config, data, device, execution)
    sync = first_sync(config, data, device, execution)
    step_ms = median_step_ms(config, data, device, execution)
    torch.cuda.reset_peak_memory_stats(device)
    accuracy, speed = short_run(config, data, device, execution)
    peak_mib = torch.cuda.max_memory_allocated(device) / 2**20
    whole = min(images, len(data.train)) >= EPOCH_IMAGES
    name = f"{model} {way}"
    return Row(name, difference, sync, step_ms, speed, whole, accuracy, peak_mib, precision)


def main() -> int:
    """Check the models and print the table; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=SUBSET, help="folder of the four IDX files")
    parser.add_argument(
        "--models",
        nargs="*",
        default=list(ARTICLE),
        help="default: the trio, for which the "
        "tolerance was measured; any name of the zoo may be given",
    )
    parser.add_argument("--quick", action="store_true", help="train for a fifth of an epoch")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was checked")
        return 0
    device = torch.device("cuda", torch.cuda.current_device())
    torch.set_float32_matmul_precision("highest")  # some containers switch TF32 on
    images = EPOCH_IMAGES // 5 if args.quick else EPOCH_IMAGES
    try:
        data = load_search_data(dataset(f"idx:{args.data}", Path()))
    except BnvitError as error:
        parser.error(str(error))
    machine = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    print(f"{datetime.now():%Y-%m-%d %H:%M}, {machine}, torch {torch.__version__}, {args.data}")
    print(f"float32 is without TF32; batch {BATCH_SIZE}, Adam lr {LR:g}", HEADINGS, sep="\n")
    passed = []
    for model in args.models:
        for way in WAYS:
            row = check(model, way, data, device, images)
            print(row, flush=True)
            passed.append(row.ok)
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
