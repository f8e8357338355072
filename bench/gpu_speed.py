"""Training steps on a GPU: ours against timm's, the article's loop, and the products alone.

    python bench/gpu_speed.py --output docs/results/gpu-h200.md

Hardware: one CUDA device of 80 GB for batches of 256.
Expected time: 5 min (estimated, not yet measured).
Needs torch ≥ 2.11, torchvision, einops, timm and numpy, no more, and no installation.

`--device cpu --batch-size 2 --image-size 32 --turns 1` tries the script without a GPU.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from contenders import GRAPHED, Call, config_of, floor_calls, stretches, training_calls
from products import products_of
from torch import Tensor, nn
from turns import Times, ratio, take_turns

from models.registry import ARTICLE, variant
from models.switches import ImageShape
from models.torchvision_import import timm_module
from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset
from objectives.execution import loss_of
from objectives.steps import CudaRecorder, GraphedStep, PlainStep, Step

BACKBONES = {
    "deit_small": "deit_small_patch16_224",
    "deit_small_bn": "deit_small_patch16_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin_tiny_bn": "swin_tiny_patch4_window7_224",
}
"""Ours, and timm's model that it is compared with."""

SUBSET = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "mnist-subset"
CLASSES = 1_000
LR = 1e-4
STEPS = 10  # in one turn
HEADINGS = ("model", "way", "ms per step", "faster than the reference", "products / time")


def backbone_calls(
    name: str, image: ImageShape, batch: int, device: torch.device
) -> dict[str, Call]:
    """`STEPS` steps of timm's model and of ours in bf16; and the products of ours."""
    pixels = torch.rand(batch, image.channels, image.size, image.size, device=device)
    labels = torch.randint(image.classes, (batch,), device=device)
    create = timm_module("models").create_model
    reference = create(BACKBONES[name], num_classes=image.classes, img_size=image.size)
    ours = variant(name).build(image)
    calls = {
        "reference": _repeated(_plain(reference.to(device), device), pixels, labels),
        "ours": _repeated(_plain(ours.to(device), device), pixels, labels),
    }
    if device.type == "cuda":
        again = variant(name).build(image).to(device)
        graphed = GraphedStep(_plain(again, device, capturable=True), CudaRecorder())
        calls["ours, graph"] = _repeated(graphed, pixels, labels)
    products = products_of(partial(_plain(ours, device), pixels, labels))
    calls["products"] = partial(_times, products)
    return calls


def trio_calls(name: str, data: SearchData, device: torch.device) -> dict[str, Call]:
    """`STEPS` steps of the article's loop and of ours; and the floors."""
    calls = training_calls(name, data, device, STEPS)
    calls["reference"] = calls.pop("article")
    for label, precision in (("graph", "float32"), ("bf16, graph", "bf16")):
        config = config_of(name, data, precision)  # type: ignore[arg-type]  # both are known
        calls[f"ours, {label}"] = stretches(config, data, device, GRAPHED, STEPS)
    return calls | floor_calls(device, STEPS)


def rows(name: str, times: dict[str, Times]) -> list[tuple[str, ...]]:
    """One line for each way."""
    told: list[tuple[str, ...]] = []
    for way, taken in times.items():
        products = times.get("products")
        if products is None:
            products = times[f"floor {'bf16' if 'bf16' in way else 'float32'}"]
        told.append(
            (
                f"`{name}`",
                way,
                f"{taken.median_s * 1e3 / STEPS:.2f}",
                str(ratio(times["reference"], taken)),
                f"{products.median_s / taken.median_s:.0%}",
            )
        )
    return told


def _plain(model: nn.Module, device: torch.device, capturable: bool = False) -> PlainStep:
    optimizer = torch.optim.Adam(model.parameters(), LR, fused=True, capturable=capturable)
    assert next(model.parameters()).device.type == device.type
    return PlainStep(loss_of(model.train(), "bf16"), optimizer)


def _repeated(step: Step, pixels: Tensor, labels: Tensor) -> Call:
    return partial(_times, partial(step, pixels, labels))


def _times(call: Callable[[], object]) -> None:
    for _ in range(STEPS):
        call()


def page(device: torch.device, batch: int, lines: Sequence[Sequence[str]]) -> str:
    """The results with what they were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    head = f"""# Training steps on {name}

Made by `python bench/gpu_speed.py` on {date.today()}: {name}, CUDA {torch.version.cuda}, torch
{torch.__version__}. The reference is timm's own model with the same optimiser and precision (bf16,
batch {batch}), or the article's loop (batch 100) for its trio. Ways take turns; a ratio is the
median over the turns with its quartiles. *products* are the matrix products and attention of our
step alone.
"""
    table = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    return "\n".join([head, *table, *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"


def main() -> None:
    """Measure, and print the page or write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--models", nargs="*", default=[*BACKBONES, *ARTICLE])
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing was measured")
        return
    image = ImageShape(3, args.image_size, CLASSES)
    data = load_search_data(dataset(f"idx:{SUBSET}", Path())).to(device)
    lines: list[tuple[str, ...]] = []
    for name in args.models:
        if name in ARTICLE:
            calls = trio_calls(name, data, device)
        else:
            calls = backbone_calls(name, image, args.batch_size, device)
        lines += rows(name, take_turns(calls, args.turns, device))
        print(*lines[-len(calls) :], sep="\n", file=sys.stderr, flush=True)
    text = page(device, args.batch_size, lines)
    if args.output:
        args.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
