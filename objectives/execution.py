"""How a run computes what its config says: ways that differ in speed, and in rounding only."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of pixels (B, C, H, W) and labels (B,), or shares of the classes (B, classes): the mean loss ()
in float32, with its graph.
"""


@dataclass(frozen=True)
class Execution:
    """What is done to be fast. A config trains to the same weights by each, but for rounding.

    With dropout merged attention and compiled code draw other masks from the same seed.
    """

    merged: bool = True  # attention's projections multiplied out, where that is less work
    folded: bool = True  # BatchNorm folded away where a model is evaluated
    fused: bool = True  # Adam's update in one pass over the parameters
    compiled: bool = False  # the forward and backward passes, by torch.compile
    graphed: bool = False  # the whole step as one CUDA graph; elsewhere nothing

    def __str__(self) -> str:
        return "+".join(name for name, is_on in vars(self).items() if is_on) or "plain"


FAST = Execution()
PLAIN = Execution(merged=False, folded=False, fused=False)


def has_bf16_units(device: torch.device) -> bool:
    """Whether `device` multiplies matrices of bf16 by instructions of their own."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Within it matrix products are computed in `precision`; weights and sums stay float32.

    Under "bf16" and "fp16" torch's automatic mixed precision decides which operations take it.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16)


def loss_of(model: nn.Module, precision: str, label_smoothing: float = 0.0) -> Loss:
    """The mean cross-entropy of `model`, whose logits are computed in `precision`."""

    def loss(pixels: Tensor, labels: Tensor) -> Tensor:
        with autocast(pixels.device, precision):
            logits = model(pixels)
        return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)

    return loss
