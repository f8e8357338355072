"""What a model really executes: parameters, multiply-adds and blocks, counted on a forward pass."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.modes import modes_kept
from models.switches import ImageShape
from models.vit import ViT


@dataclass(frozen=True)
class Profile:
    """Counts of one model at one image size."""

    parameters: int
    macs: int  # multiply-adds of one image's forward pass
    blocks: int  # constructed
    blocks_executed: int  # seen by hooks on the forward pass


def profile(model: ViT, image: ImageShape) -> Profile:
    """Run one blank image through `model` and count; modes and buffers are left as they were."""
    executed: set[int] = set()
    hooks = [
        block.register_forward_hook(lambda *_, index=index: executed.add(index))
        for index, block in enumerate(model.blocks)
    ]
    try:
        macs = _count_macs(model, image)
    finally:
        for hook in hooks:
            hook.remove()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Profile(parameters, macs, len(model.blocks), len(executed))


def _count_macs(model: nn.Module, image: ImageShape) -> int:
    device = next(model.parameters()).device
    pixels = torch.zeros(1, image.channels, image.size, image.size, device=device)
    counter = FlopCounterMode(display=False)
    # The plain attention kernel is made of matrix products, which the counter knows on any device.
    with modes_kept(model), torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()
        model(pixels)
    return int(counter.get_total_flops()) // 2
