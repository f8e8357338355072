"""What a model really executes and needs: counted on a forward pass, not computed from formulas."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.anatomy import anatomy
from models.fold import why_kept
from models.modes import modes_kept
from models.switches import ImageShape
from models.vit import unmerged

TENSORS_PER_PARAMETER = 4  # weight, gradient, and Adam's two averages


@dataclass(frozen=True)
class Profile:
    """Counts of one model at one image size."""

    parameters: int
    macs: int  # multiply-adds of one image's forward pass
    blocks: int  # constructed
    blocks_executed: int  # seen by hooks on the forward pass
    norms: int
    foldable_norms: int  # that vanish at inference, once the model is trained


def profile(model: nn.Module, image: ImageShape) -> Profile:
    """Run one blank image through `model` and count; modes and buffers are left as they were.

    On the device of the model; a model on "meta" is counted without memory for its weights.
    """
    found = anatomy(model)
    executed: set[str] = set()
    hooks = [
        model.get_submodule(path).register_forward_hook(lambda *_, path=path: executed.add(path))
        for path in found.blocks
    ]
    try:
        macs = _count_macs(model, image)
    finally:
        for hook in hooks:
            hook.remove()
    norms, foldable_norms = count_norms(model)
    return Profile(
        parameters=count_parameters(model),
        macs=macs,
        blocks=len(found.blocks),
        blocks_executed=len(executed),
        norms=norms,
        foldable_norms=foldable_norms,
    )


def count_parameters(model: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_norms(model: nn.Module) -> tuple[int, int]:
    """Norms of `model`, and how many of them vanish at inference once it is trained."""
    sites = anatomy(model).sites
    return len(sites), sum(not why_kept(model, site, trained=False) for site in sites)


def training_bytes(model: nn.Module, image: ImageShape, batch_size: int) -> int:
    """Memory of a training step with Adam, for a model on "meta": parameters and activations.

    The activations are what autograd keeps for the backward pass; what single operations need
    beside that comes on top.
    """
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    pixels = _blank(model, image, batch_size)
    with modes_kept(model), saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()
        logits = model(pixels)  # which holds on to the graph, so that no storage is counted twice
    weights = sum(parameter.nbytes for parameter in model.parameters()) * TENSORS_PER_PARAMETER
    return weights + sum(kept.values()) + int(logits.nbytes)


def _count_macs(model: nn.Module, image: ImageShape) -> int:
    """As the model is defined, also where its attention is computed with fewer products."""
    counter = FlopCounterMode(display=False)
    # The plain attention kernel is made of matrix products, which the counter knows on any device.
    with (
        modes_kept(model),
        unmerged(model),
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        model.eval()
        # The counter's hooks follow gradients, which nothing here is to have.
        frozen = {name: parameter.detach() for name, parameter in model.named_parameters()}
        functional_call(model, frozen, (_blank(model, image, 1),))
    return int(counter.get_total_flops()) // 2


def _blank(model: nn.Module, image: ImageShape, batch_size: int) -> Tensor:
    device = next(model.parameters()).device
    return torch.zeros(batch_size, image.channels, image.size, image.size, device=device)
