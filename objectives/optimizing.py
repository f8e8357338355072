"""The optimiser and the learning rate of each step, as a recipe wants them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from models.torchvision_import import timm_module
from models.weights import TOKENS
from objectives.execution import Execution
from objectives.recipe import TrainConfig

_NEVER = 10**15  # steps: a cosine as long stays at 1

SetRate = Callable[[int], None]
"""Sets the learning rate of the step numbered from 0."""


def optimizer_of(
    model: nn.Module, config: TrainConfig, execution: Execution
) -> torch.optim.Optimizer:
    """The optimiser of what of `model` is trained.

    Weight decay leaves out biases, tokens, positions and whatever has one dimension, as norms do.
    """
    recipe = config.recipe
    if recipe.weight_decay:
        tokens = [name for name, _ in model.named_parameters() if name.split(".")[-1] in TOKENS]
        groups = timm_module("optim").param_groups_weight_decay(
            model, recipe.weight_decay, no_weight_decay_list=tokens
        )
    else:
        groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.full_lr, momentum=recipe.momentum, fused=execution.fused
        )
    kind: Any = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    options: dict[str, Any] = {"fused": execution.fused, "capturable": execution.graphed}
    if recipe.optimizer == "adamw":
        options["weight_decay"] = 0.0  # of groups that say nothing
    return kind(groups, lr=config.full_lr, **options)


def schedule_of(optimizer: torch.optim.Optimizer, config: TrainConfig) -> SetRate | None:
    """Warm-up and decay over the run's steps; None where the learning rate stays.

    A function of the step alone, so an interrupted run goes on where it was.
    """
    recipe, steps = config.recipe, config.steps
    warm = round(recipe.warmup * steps)
    if recipe.schedule == "constant" and not warm:
        return None
    decay = steps - warm if recipe.schedule == "cosine" else _NEVER
    scheduler = timm_module("scheduler").CosineLRScheduler(
        optimizer,
        t_initial=max(decay, 1),
        warmup_t=warm,
        warmup_lr_init=config.full_lr / (warm + 1),
        warmup_prefix=True,
        t_in_epochs=False,
    )
    return scheduler.step_update
