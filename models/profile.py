"""What a model really executes: parameters, multiply-adds and blocks, counted on a forward pass."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.anatomy import anatomy
from models.modes import modes_kept
from models.switches import ImageShape


@dataclass(frozen=True)
class Profile:
    """Counts of one model at one image size."""

    parameters: int
    macs: int  # multiply-adds of one image's forward pass
    blocks: int  # constructed
    blocks_executed: int  # seen by hooks on the forward pass


def profile(model: nn.Module, image: ImageShape) -> Profile:
    """Run one blank image through `model` and count; modes and buffers are left as they were."""
    executed: set[str] = set()
    blocks = anatomy(model).blocks
    hooks = [
        model.get_submodule(path).register_forward_hook(lambda *_, path=path: executed.add(path))
        for path in blocks
    ]
    try:
        macs = _count_macs(model, image)
    finally:
        for hook in hooks:
            hook.remove()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Profile(parameters, macs, len(blocks), len(executed))


def _count_macs(model: nn.Module, image: ImageShape) -> int:
    device = next(model.parameters()).device
    pixels = torch.zeros(1, image.channels, image.size, image.size, device=device)
    counter = FlopCounterMode(display=False)
    # The plain attention kernel is made of matrix products, which the counter knows on any device.
    with modes_kept(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()
        # The counter's hooks follow gradients, which nothing here is to have.
        frozen = {name: parameter.detach() for name, parameter in model.named_parameters()}
        functional_call(model, frozen, (pixels,))
    return int(counter.get_total_flops()) // 2
