"""Blocks that keep only their input, and are computed again in the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.anatomy import anatomy
from models.errors import InputError
from models.norms import batch_norms
from models.unified_norm import unified_norms


def checkpoint_blocks(model: nn.Module) -> None:
    """Checkpoint each residual block of `model`, in training only.

    The second forward pass leaves BatchNorm's running averages alone, which would otherwise take
    each batch twice. Raises InputError for a norm whose output depends on what it saw before.
    """
    if unified_norms(model):
        raise InputError(
            "Unified Normalization averages over steps, and a checkpointed block would count each "
            "step twice; leave out --set checkpointing"
        )
    for path in anatomy(model).blocks:
        block = model.get_submodule(path)
        block.forward = partial(_checkpointed, block, type(block).forward)


def _checkpointed(block: nn.Module, forward: Any, *inputs: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(block, *inputs)
    contexts = partial(_contexts, block)
    return checkpoint(partial(forward, block), *inputs, use_reentrant=False, context_fn=contexts)


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    return nullcontext(), _averages_kept(block)


@contextmanager
def _averages_kept(block: nn.Module) -> Iterator[None]:
    kept = [(buffer, buffer.clone()) for norm in batch_norms(block) for buffer in norm.buffers()]
    try:
        yield
    finally:
        for buffer, before in kept:
            buffer.data.copy_(before)  # not seen by autograd, which may have saved the buffer
