"""The table of all models: size, what folds, and speed on this CPU, folded and not.

    python bench/zoo.py --output docs/models.md

Hardware: any CPU; 8 GiB of memory for the largest models.
Expected time: about half an hour on two cores.
Needs torch ≥ 2.11, torchvision, einops, timm and numpy, no more, and no installation.

Training and both ways of evaluation take turns within a model; medians are shown. Speeds of one
row can be compared with each other, and only roughly with those of other rows, which were measured
at another time.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.hardware import processor

# Not installed on most machines that measure: the packages lie beside bench/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.fold import fold
from models.norms import progressive_norms
from models.profile import profile
from models.registry import all_names, variant
from models.switches import ImageShape

LR = 1e-4
HEADINGS = (
    "model",
    "parameters",
    "GMACs",
    "norms that fold",
    "training img/s",
    "evaluation img/s",
    "folded img/s",
    "folded / not",
)


@dataclass(frozen=True)
class Row:
    """One model; speeds in images per second."""

    name: str
    parameters: int
    gmacs: float  # of one image
    foldable: int
    norms: int
    train: float
    evaluation: float
    folded: float

    def cells(self) -> Iterator[str]:
        """As they stand in the table."""
        yield f"`{self.name}`"
        yield f"{self.parameters:,}"
        yield f"{self.gmacs:.4f}"
        yield f"{self.foldable} of {self.norms}"
        yield f"{self.train:.1f}"
        yield f"{self.evaluation:.1f}"
        yield f"{self.folded:.1f}"
        yield f"{self.folded / self.evaluation:.2f}"


def measure(name: str, image: ImageShape, batch_size: int, repeats: int) -> Row:
    """Build the model called `name` at its real width and time it."""
    torch.manual_seed(0)
    chosen = variant(name)
    with torch.device("meta"):
        counted = profile(chosen.build(image), image)
    model = chosen.build(image)
    pixels = torch.rand(batch_size, image.channels, image.size, image.size)
    step = _training_step(model, pixels, torch.arange(batch_size) % image.classes)
    step()  # warm-up
    train_s = [_timed(step) for _ in range(repeats)]
    for norm in progressive_norms(model):
        norm.set_progress(1.0)
    model.zero_grad(set_to_none=True)
    plain, folded = model.eval(), fold(model).model
    with torch.inference_mode():
        for each in (plain, folded):  # warm-up
            each(pixels)
        turns = [
            [_timed(partial(each, pixels)) for each in (plain, folded)] for _ in range(2 * repeats)
        ]
    plain_s, folded_s = (statistics.median(times) for times in zip(*turns, strict=True))
    return Row(
        name=name,
        parameters=counted.parameters,
        gmacs=counted.macs / 1e9,
        foldable=counted.foldable_norms,
        norms=counted.norms,
        train=batch_size / statistics.median(train_s),
        evaluation=batch_size / plain_s,
        folded=batch_size / folded_s,
    )


def _training_step(model: nn.Module, pixels: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)

    def step() -> None:
        F.cross_entropy(model.train()(pixels), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _timed(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


def page(rows: dict[str, str], args: argparse.Namespace) -> str:
    """The page that holds the table, of lines by model."""
    timm = version("timm")
    about = (
        f"# All models\n\n"
        f"Made by `make models` on {date.today()}: "
        f"images of 3×{args.image_size}×{args.image_size}, {args.classes} classes, the default "
        f"patch; batches of {args.batch_size}, float32, {torch.get_num_threads()} threads of "
        f"{processor()}; torch {torch.__version__}, timm {timm}. Training is forward, backward "
        f"and Adam (median of {args.repeats} steps); evaluation takes turns between the model and "
        f"its folded form (median of {2 * args.repeats}). The machine is shared: differences of "
        "a few per cent say nothing, and `folded / not` is the ratio to read. Not measured on a "
        "GPU yet.\n\n"
        "Norms that fold: at inference, once trained (PRepBN at the end of its λ). Any backbone "
        "takes any norm and any of `_ffnbn`, `_wn`, `_relu6`; below are all norms alone and the "
        "combinations that the sources train.\n"
    )
    lines = [
        "| " + " | ".join(HEADINGS) + " |",
        "|---" + "|---:" * (len(HEADINGS) - 1) + "|",
        *(rows[name] for name in all_names() if name in rows),
    ]
    return about + "\n" + "\n".join(lines) + "\n"


def _measured(page: Path | None) -> dict[str, str]:
    """The lines of a table that is there, by model: those not measured now stay."""
    if page is None or not page.exists():
        return {}
    lines = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in lines}


def main() -> None:
    """Measure all models, or those whose name begins as asked, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="file for the table; default: print it")
    parser.add_argument(
        "--models", default="", help="only those whose name begins so; the others stay"
    )
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    image = ImageShape(3, args.image_size, args.classes)
    rows = _measured(args.output)
    for name in all_names():
        if name.startswith(args.models):
            cells = list(measure(name, image, args.batch_size, args.repeats).cells())
            rows[name] = "| " + " | ".join(cells) + " |"
            print(" ".join(cells), file=sys.stderr, flush=True)
    if args.output:
        args.output.write_text(page(rows, args))
    else:
        print(page(rows, args))


if __name__ == "__main__":
    main()
