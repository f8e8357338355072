"""torch.compile for the training step: whether it can be used here, and when it pays.

On a CPU the compiled step takes about 0.85 of the time in float32 and 0.75 in bf16 (the article's
models, 2 cores; docs/performance.md). What was compiled serves all trials of a worker, whatever
their batch size, and is kept on disk for the next.
"""

import logging
import os
import shutil
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.norms import progressive_norms
from models.profile import Profile
from models.unified_norm import unified_norms
from models.vit import ViT
from objectives.execution import Execution, Loss

SAVED_SHARE = 0.15  # of a step's time, at least
COMPILE_S_PER_BLOCK = 3.5  # on two cores, nothing cached
WORTH = 2.0  # times its own cost that compilation has to save
MACS_PER_S = 75e9  # of a training step, as two cores execute them
PASSES = 3  # multiply-adds of a step over those of its forward pass

log = logging.getLogger(__name__)


def possible(execution: Execution, model: nn.Module, device: torch.device) -> Execution:
    """What of `execution` can be done with `model` here; what is left out is logged.

    Compiling is for the CPU, graphs are for CUDA: on the other device each is silently nothing.
    """
    is_cpu, is_cuda = device.type == "cpu", device.type == "cuda"
    wanted = replace(
        execution, compiled=execution.compiled and is_cpu, graphed=execution.graphed and is_cuda
    )
    if wanted.compiled and (reason := why_not_compiled(model)):
        log.warning("the training step is not compiled: %s", reason)
        wanted = replace(wanted, compiled=False)
    if wanted.graphed and progressive_norms(model):
        log.warning("the training step is no graph: PRepBN leaves LayerNorm out once λ is 0")
        wanted = replace(wanted, graphed=False)
    return wanted


def why_not_compiled(model: nn.Module) -> str:
    """Why a step of `model` cannot be compiled on a CPU here; empty if it can."""
    if unified_norms(model):
        return "Unified Normalization changes its buffers in the backward pass"
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None and shutil.which("clang++") is None:
        return f"no C++ compiler is installed here ({compiler})"
    return ""


def pays(model: nn.Module, profile: Profile, images: float) -> bool:
    """Whether a CPU worker that will train `images` images saves more by compiling than it takes.

    Never for models of other families, of whose steps large products take nearly all.
    """
    if not isinstance(model, ViT):
        return False
    train_s = images * profile.macs * PASSES / MACS_PER_S
    return train_s * SAVED_SHARE > WORTH * COMPILE_S_PER_BLOCK * profile.blocks


def compiled(loss: Loss) -> Loss:
    """`loss` compiled for any batch size when it is first called.

    Where compilation fails that is logged, and `loss` is used as it is.
    """
    from torch._dynamo import maybe_mark_dynamic  # whose import takes a second
    from torch._dynamo.exc import TorchDynamoException

    fast: Loss = torch.compile(loss)
    is_broken = False

    def either(pixels: Tensor, labels: Tensor) -> Tensor:
        nonlocal is_broken
        if is_broken:
            return loss(pixels, labels)
        for tensor in (pixels, labels):
            maybe_mark_dynamic(tensor, 0)
        try:
            return fast(pixels, labels)
        except TorchDynamoException as error:
            is_broken = True
            reason = str(error).strip().splitlines()[0]
            log.warning("the training step could not be compiled (%s); it runs as it is", reason)
            return loss(pixels, labels)

    return either
