"""Training steps on a GPU: ours against timm's, the article's loop, and the products alone.

    python bench/gpu_speed.py --output gpu-steps.md

Hardware: one CUDA device of 80 GB for batches of 256.
Expected time: on an H200 15 s for each backbone with `--turns 3`; the default is 9.
Needs torch ≥ 2.11, torchvision, einops, timm and numpy, no more, and no installation.

`--device cpu --batch-size 2 --image-size 32 --turns 1` tries the script without a GPU.
"""

import argparse
import gc
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from contenders import (
    ARTICLE_WAY,
    BATCH_SIZE,
    GRAPHED,
    Call,
    config_of,
    floor_calls,
    stretches,
    training_call,
    training_ways,
)
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
TRAIN_IMAGES = 900  # whole batches, so that the article's loop has no smaller one
HEADINGS = (
    "model",
    "way",
    "ms per step",
    "faster than the reference",
    "products / time",
    "merged products / time",
)


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
        graphed = GraphedStep(_plain(again, device, capturable=True), CudaRecorder(device))
        calls["ours, graph"] = _repeated(graphed, pixels, labels)
    products = products_of(partial(_plain(ours, device), pixels, labels))
    calls["products"] = partial(_times, products)
    return calls


def trio_calls(name: str, data: SearchData, device: torch.device) -> dict[str, Call]:
    """`STEPS` steps of the article's loop and of ours; and the floors."""
    calls = {
        "reference" if way == ARTICLE_WAY else way: training_call(way, name, data, device, STEPS)
        for way in training_ways(device)
    }
    graphs = (("graph", "float32"), ("bf16, graph", "bf16")) if device.type == "cuda" else ()
    for label, precision in graphs:
        config = config_of(name, data, precision)  # type: ignore[arg-type]  # both are known
        calls[f"ours, {label}"] = stretches(config, data, device, GRAPHED, STEPS)
    return calls | floor_calls(device, STEPS)


def rows(name: str, times: dict[str, Times]) -> list[tuple[str, ...]]:
    """One line for each way."""
    told: list[tuple[str, ...]] = []
    for way, taken in times.items():
        own = f"floor {'bf16' if 'bf16' in way else 'float32'}"
        products = times.get("products") or times[own]
        merged = times.get(f"{own}, merged")
        told.append(
            (
                f"`{name}`",
                way,
                f"{taken.median_s * 1e3 / STEPS:.2f}",
                str(ratio(times["reference"], taken)),
                str(ratio(products, taken)),
                "" if merged is None else str(ratio(merged, taken)),
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
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else "a CPU"
    cudnn, timm = torch.backends.cudnn.version(), importlib.metadata.version("timm")
    head = f"""# Training steps on {name}

Made by `python bench/gpu_speed.py` on {date.today()}: {name}, CUDA {torch.version.cuda}, cuDNN
{cudnn}, torch {torch.__version__}, timm {timm}. The reference is timm's own model with the same
optimiser and precision (bf16, batch {batch}), or the article's loop (batch {BATCH_SIZE}) for its
trio. Ways take turns; a ratio is the median over the turns with its quartiles. *products* are the
matrix products and attention of the step alone, without what else reads and writes the device's
memory; for the trio those that the article's model defines, and those of merged attention, each as
one CUDA graph.
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
    data = load_search_data(dataset(f"idx:{SUBSET}", Path())).limited(TRAIN_IMAGES)
    lines: list[tuple[str, ...]] = []
    for name in args.models:
        if name in ARTICLE:
            calls = trio_calls(name, data, device)
        else:
            calls = backbone_calls(name, image, args.batch_size, device)
        lines += rows(name, take_turns(calls, args.turns, device))
        print(*lines[-len(calls) :], sep="\n", file=sys.stderr, flush=True)
        calls.clear()  # with what they hold of the device's memory
        gc.collect()
        torch.cuda.empty_cache()
        if args.output:  # what was measured is there, whatever becomes of the next model
            args.output.write_text(page(device, args.batch_size, lines))
    if not args.output:
        print(page(device, args.batch_size, lines))


if __name__ == "__main__":
    main()
