"""A trained model as a file for others: verified, folded if asked, then written."""

import copy
import re
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from models.errors import InputError, few
from models.fold import Folded, fold
from objectives import card
from objectives.card import Card
from objectives.recipe import PRECISION
from study.errors import ExportError
from study.settings import Settings
from study.trained import trained_weights
from study.weights_file import put

MODEL_FORMATS = ("safetensors", "onnx")
TRIED_IMAGES = 16  # random ones, on which an export is compared with its model
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}  # of logits, relative to the largest
ONNX_TOLERANCE = 1e-4  # onnxruntime adds up in another order
ONNX_INPUT = "images"


def export_model(
    target: str, format_: str, folded: bool, output: Path | None, settings: Settings
) -> list[str]:
    """Write the model that `target` names; returns what is to be said of it.

    `target` is a study (its best trial is taken), an MLflow run, or a file of weights. The file
    appears once it was verified. Raises InputError where there is no such model, and ExportError
    where what would be written does not compute what the model does.
    """
    with trained_weights(target, settings) as found:
        told, model = card.load(found.path)
    marked = "" if told.precision == PRECISION else f", trained in {told.precision}"
    lines = [f"model:   {told.model}{marked}"]
    if folded:
        done = fold(model)
        lines += [*_fold_lines(done), _compare_fold(model, told)]
        model, told = done.model, replace(told, folded=True)
    stem = re.sub(r"[^\w.-]", "-", Path(target).stem)
    output = output or Path(f"{stem}{'-folded' if folded else ''}.{format_}")
    if output.exists() and Path(target).exists() and output.samefile(target):
        raise InputError(f"{output} would replace what is exported; give another with --output")
    with TemporaryDirectory() as folder:
        made = Path(folder) / f"model.{format_}"
        if format_ == "onnx":
            difference = _write_onnx(model, told, made)
        else:
            difference = _write_safetensors(model, told, made)
        put(made, output)
    reader = "onnxruntime gives" if format_ == "onnx" else "the file, read again, gives"
    lines.append(f"checked: {reader} the same logits, within {difference:.1e}")
    return [*lines, f"written: {output}"]


def _fold_lines(done: Folded) -> list[str]:
    total = len(done.folded) + len(done.kept)
    lines = [f"folded:  {len(done.folded)} of {total} norms"]
    if done.fused:
        lines.append(f"fused:   weight norm of {len(done.fused)} maps")
    reasons: dict[str, list[str]] = {}
    for path, reason in done.kept.items():
        reasons.setdefault(reason, []).append(path)
    for reason, paths in reasons.items():
        lines.append(f"kept:    {few(paths, most=1)}: {reason}")
    return lines


@torch.no_grad()
def _compare_fold(model: nn.Module, told: Card) -> str:
    """What to say of folding's effect; raises ExportError where it changes the model."""
    images = _images(told.image.channels, told.image.size)
    differences = []
    for dtype, tolerance in TOLERANCE.items():
        plain = copy.deepcopy(model).to(dtype)
        wanted, got = (each(images.to(dtype)) for each in (plain, fold(plain).model))
        differences.append(_check(wanted, got, tolerance, f"folding in {dtype}"))
    double, single = differences
    return (
        f"checked: folding changes no logit of {TRIED_IMAGES} images by more than {double:.1e} in "
        f"float64, {single:.1e} in float32"
    )


@torch.no_grad()
def _write_safetensors(model: nn.Module, told: Card, path: Path) -> float:
    card.save(path, model.state_dict(), told)
    _, again = card.load(path)
    images = _images(told.image.channels, told.image.size)
    tolerance = TOLERANCE[torch.float32]
    return _check(model(images), again(images), tolerance, "the file read again")


@torch.no_grad()
def _write_onnx(model: nn.Module, told: Card, path: Path) -> float:
    """Write a graph from pixels in [0, 1] to logits, for any number of images."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise InputError("--format onnx needs more packages: pip install '.[onnx]'") from error
    whole = _FromPixels(model, told).eval()
    images = _images(told.image.channels, told.image.size)
    with warnings.catch_warnings(action="ignore"):  # of the exporter about itself
        program = torch.onnx.export(
            whole,
            (images,),
            input_names=[ONNX_INPUT],
            output_names=["logits"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    if len(list(path.parent.iterdir())) > 1:  # torch has put the weights into a second one
        raise InputError("the model is too large for one ONNX file; use --format safetensors")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    difference = 0.0
    for count in (1, TRIED_IMAGES):
        (logits,) = session.run(None, {ONNX_INPUT: images[:count].numpy()})
        wanted = whole(images[:count])
        difference = max(
            difference, _check(wanted, torch.from_numpy(logits), ONNX_TOLERANCE, "onnxruntime")
        )
    return difference


class _FromPixels(nn.Module):
    """A model with the scaling of its data set before it."""

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, model: nn.Module, told: Card) -> None:
        super().__init__()
        self.model = model
        split = told.split(torch.empty(0), torch.empty(0))
        self.register_buffer("mean", split.mean)
        self.register_buffer("std", split.std)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of pixels in [0, 1] (B, channels, size, size)."""
        if self.mean is not None and self.std is not None:
            pixels = (pixels - self.mean) / self.std
        return self.model(pixels)


def _images(channels: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(TRIED_IMAGES, channels, size, size, generator=generator)


def _check(wanted: Tensor, got: Tensor, tolerance: float, what: str) -> float:
    """The largest difference; raises ExportError where it is beyond `tolerance`."""
    difference = float((wanted - got).abs().max())
    if not difference <= tolerance * max(1.0, float(wanted.abs().max())):
        raise ExportError(
            f"{what} changes the model: a logit differs by {difference:.1e}, more than "
            f"{tolerance:.0e}; nothing was written"
        )
    return difference
