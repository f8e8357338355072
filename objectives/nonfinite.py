"""Where a training step first meets a number that is not finite."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objectives.execution import Loss
from objectives.metrics import Stage

LOSS = "loss"  # all modules' outputs are finite, and the cross-entropy of the logits is not
MODEL = "model"  # the whole: an operation of its own, or a parameter that stands beside its modules

_Look = Callable[[str, Stage, object], None]
"""Is shown each result of a step, in order, with the path of its module."""


@dataclass(frozen=True)
class Origin:
    """Where a step stopped being finite."""

    layer: str  # path of a module, or one of the words here
    stage: Stage


UPDATE = Origin("optimizer", "update")  # only the weights after the step are not finite


def first_non_finite(
    model: nn.Module, loss: Loss, pixels: Tensor, labels: Tensor, backward: bool = True
) -> Origin | None:
    """The first module of `model`, in order of execution, whose output is not finite.

    The step is made on pixels (B, C, H, W) and labels (B,), without the optimiser. Where its
    forward pass is finite: the module of the first parameter, from the loss backwards, whose
    gradient has no finite norm in float32, or the model if only all have none together; `backward`
    false leaves that out. None: there is
    nothing of the kind. Uses up the parameters' gradients, and moves the statistics that norms
    keep. Modules that are computed as one, such as merged attention, are told as one.
    """
    found: list[Origin] = []

    def look(path: str, stage: Stage, result: object) -> None:
        if not found and not _is_finite(result):
            found.append(Origin(path or MODEL, stage))

    with _shown_to(look, model):
        value = loss(pixels, labels)
        look(LOSS, "output", value)
        if backward and not found:
            model.zero_grad(set_to_none=True)
            value.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            look(MODEL, "gradient", nn.utils.get_total_norm(gradients))
    return found[0] if found else None


@contextmanager
def _shown_to(look: _Look, model: nn.Module) -> Iterator[None]:
    """Within it outputs, and gradients in the order in which they are ready, are shown to `look`.

    A module's own parts come before it, as they end first.
    """
    hooks = [
        module.register_forward_hook(lambda *told, path=path: look(path, "output", told[-1]))
        for path, module in model.named_modules()
    ]
    trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    for name, parameter in trained:
        path = name.rpartition(".")[0]
        hooks.append(
            parameter.register_post_accumulate_grad_hook(
                lambda parameter, path=path: look(path, "gradient", _norm_of_gradient(parameter))
            )
        )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _norm_of_gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return torch.linalg.vector_norm(parameter.grad)


def _is_finite(result: object) -> bool:
    """Whether all numbers are, of a tensor or of several; what is no tensor has none."""
    if isinstance(result, Tensor):
        return bool(result.isfinite().all())
    return not isinstance(result, tuple | list) or all(map(_is_finite, result))
