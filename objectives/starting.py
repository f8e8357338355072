"""A training run at its beginning: the model with what trains it, from a configuration."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from models.checkpointing import checkpoint_blocks
from models.errors import InputError
from models.norms import progressive_norms, set_ghost, set_synced
from models.torchvision_import import timm_module
from models.unified_norm import unified_norms
from models.vit import merge_attention
from objectives.compiling import compiled, possible
from objectives.data import SearchData
from objectives.distillation import training_loss
from objectives.execution import FAST, Execution
from objectives.initial import initial_model, train_head_only
from objectives.optimizing import optimizer_of, schedule_of
from objectives.peak_memory import forget_peak
from objectives.recipe import TrainConfig
from objectives.run import Run, scaler_of
from objectives.segment import Segment
from objectives.team import ALONE, Alone


def start(
    config: TrainConfig,
    data: SearchData,
    device: torch.device,
    execution: Execution = FAST,
    team: Alone = ALONE,
) -> Run:
    """A run at its beginning. `config.seed` fixes the weights, the data order and dropout.

    Each process of `team` starts the same run. Raises InputError where a team cannot train it.

    Sets this process's random state, flushes denormals (in a saturated softmax they slow a CPU a
    hundredfold without changing what is learned), and keeps float32 products in float32.
    """
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(config.seed)
    forget_peak(device)
    data = data.to(device)
    recipe = config.recipe
    model = initial_model(config, data)
    _check_team(config, model, team)
    set_ghost(model, recipe.nbs)
    set_synced(model, recipe.sync_bn and team.size > 1)
    if recipe.train == "head":
        train_head_only(model)
    for norm in [] if recipe.train == "head" else progressive_norms(model):
        norm.set_progress(0.0)  # trained weights may come with the end of another run
    execution = possible(execution, model, device, recipe, config.precision, team.size)
    execution = replace(execution, merged=merge_attention(model, execution.merged))
    if recipe.checkpointing:
        checkpoint_blocks(model)
    optimizer = optimizer_of(model, config, execution)
    loss = training_loss(model, config, data)
    return Run(
        config,
        data,
        device,
        model,
        optimizer,
        Segment.empty(device),
        compiled(loss) if execution.compiled else loss,
        loss,
        scaler_of(device, config.precision),
        schedule_of(optimizer, config),
        _average_of(model, recipe.ema),
        is_frozen=recipe.train == "head",
        execution=execution,
        team=team,
        processes=team.size,
    )


def _check_team(config: TrainConfig, model: nn.Module, team: Alone) -> None:
    if team.size > 1 and unified_norms(model):
        raise InputError(
            f"{config.model} averages over the steps of one process (Unified Normalization); "
            "train it with one process per trial"
        )
    if config.batch_size < team.size:
        raise InputError(
            f"a batch of {config.batch_size} cannot be divided among {team.size} processes"
        )


def _average_of(model: nn.Module, decay: float) -> Any:
    """A moving average of the weights, whose decay grows to `decay` over the first steps."""
    if not decay:
        return None
    return timm_module("utils").ModelEmaV3(model, decay, use_warmup=True)
