"""torch.compile for the training step: whether it can be used here, and when it pays.

On a CPU the compiled step takes 0.83 to 0.9 of the time in float32 and about 0.8 in bf16 (the
article's models, 2 cores; docs/performance.md). What was compiled serves all trials of a worker,
whatever their batch size, and is kept on disk for the next: `keep_in` says where.
"""

import logging
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from models.errors import first_line
from models.norms import progressive_norms
from models.profile import profile
from models.switches import ImageShape
from models.unified_norm import unified_norms
from models.vit import ViT
from objectives.execution import Execution, Loss
from objectives.precision import Precision
from objectives.recipe import PRECISION
from objectives.recipes import ARTICLE, Recipe

SAVED_SHARE = 0.1  # of a step's time, at least
COMPILE_S_PER_BLOCK = 3.5  # on two cores, nothing cached
WORTH = 2.0  # times its own cost that compilation has to save
MACS_PER_S = 75e9  # of a training step, as two cores execute them
PASSES = 3  # multiply-adds of a step over those of its forward pass

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
FUSED_ADAM = ("cpu", "cuda")  # devices whose fused kernel is checked against the plain one

log = logging.getLogger(__name__)


class _Here:
    """What is known of this process."""

    failure = ""  # why a compilation failed; no other is tried


def possible(
    execution: Execution,
    model: nn.Module,
    device: torch.device,
    recipe: Recipe = ARTICLE,
    precision: Precision = PRECISION,
    processes: int = 1,
) -> Execution:
    """What of `execution` can be done with `model` here; a step that stays as it is, is logged.

    Compiling is for the CPU, graphs are for CUDA: on other devices each is silently nothing.
    `processes`: so many train the model together.
    """
    wanted = replace(
        execution,
        folded=execution.folded and device.type != "mps",  # which lacks double precision
        fused=execution.fused and device.type in FUSED_ADAM,
        compiled=execution.compiled and device.type == "cpu",
        graphed=execution.graphed and device.type == "cuda",
    )
    together = "several processes train the model together" if processes > 1 else ""
    if wanted.compiled and (reason := together or uncompilable(recipe) or why_not_compiled(model)):
        _warn_once(f"the training step is not compiled: {reason}")
        wanted = replace(wanted, compiled=False)
    if wanted.graphed and (reason := together or _why_no_graph(model, recipe, precision)):
        log.info("the training step is no graph: %s", reason)
        wanted = replace(wanted, graphed=False)
    return wanted


def uncompilable(recipe: Recipe) -> str:
    """Why the step of a recipe is never compiled; empty if it may be."""
    reasons = {
        "BatchNorm is frozen on the way": recipe.freeze_bn > 0,
        "statistics are taken of ghost batches": recipe.nbs is not None,
        "blocks are checkpointed": recipe.checkpointing,
        "a teacher is asked": recipe.teacher is not None,
    }
    return _first_of(reasons)


def _why_no_graph(model: nn.Module, recipe: Recipe, precision: Precision) -> str:
    """A graph keeps what was there when it was recorded, and holds one plain step."""
    reasons = {
        "PRepBN leaves LayerNorm out once λ is 0": bool(progressive_norms(model)),
        "its learning rate changes": recipe.schedule != "constant" or recipe.warmup > 0,
        "gradients are accumulated": recipe.accumulate > 1,
        "gradients are clipped": recipe.clip is not None,
        "losses are scaled for fp16": precision == "fp16",
    }
    return uncompilable(recipe) or _first_of(reasons)


def _first_of(reasons: Mapping[str, bool]) -> str:
    return next((reason for reason, is_so in reasons.items() if is_so), "")


def why_not_compiled(model: nn.Module) -> str:
    """Why a step of `model` cannot be compiled on a CPU here; empty if it can."""
    if unified_norms(model):
        return "Unified Normalization changes its buffers in the backward pass"
    compiler = os.environ.get("CXX", "g++")
    if not (words := shlex.split(compiler)) or shutil.which(words[0]) is None:
        return f"no C++ compiler is installed here ({compiler})"
    return _Here.failure


def pays(model: nn.Module, shape: ImageShape, images: float) -> bool:
    """Whether a CPU worker that will train `images` images saves more by compiling than it takes.

    Never for models of other families, of whose steps large products take nearly all.
    """
    if not isinstance(model, ViT):
        return False
    counts = profile(model, shape)
    train_s = images * counts.macs * PASSES / MACS_PER_S
    return train_s * SAVED_SHARE > WORTH * COMPILE_S_PER_BLOCK * counts.blocks


def compiled(loss: Loss) -> Loss:
    """`loss` compiled for any batch size when it is first called.

    Where compilation fails that is logged, and `loss` is used as it is, here and by all later runs
    of this process.
    """
    from torch._dynamo import maybe_mark_dynamic  # whose import takes a second
    from torch._dynamo.exc import TorchDynamoException
    from torch._functorch import config

    config.force_non_lazy_backward_lowering = True  # the backward pass fails here or not at all
    fast: Loss = torch.compile(loss)

    def either(pixels: Tensor, labels: Tensor) -> Tensor:
        if _Here.failure:
            return loss(pixels, labels)
        for tensor in (pixels, labels):
            maybe_mark_dynamic(tensor, 0)
        try:
            return fast(pixels, labels)
        except TorchDynamoException as error:
            reason = first_line(str(error))
            _Here.failure = f"that failed before ({reason})"
            log.warning("the training step could not be compiled (%s); it runs as it is", reason)
            return loss(pixels, labels)

    return either


def keep_in(data_dir: Path) -> dict[str, str]:
    """The environment in which compiled code outlives the process, unless a place is given."""
    usual = str(data_dir.absolute() / "compiled")
    return {CACHE_VARIABLE: os.environ.get(CACHE_VARIABLE, usual)}


@cache
def _warn_once(line: str) -> None:
    log.warning("%s", line)
