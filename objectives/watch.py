"""What is told of a run that stopped being finite; watched closely, also where that began."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.modes import modes_kept
from objectives.execution import loss_of
from objectives.feed import Batch
from objectives.metrics import Diverged
from objectives.nonfinite import UPDATE, Origin, first_non_finite
from objectives.run import Run


class NoWatch:
    """Training without a watch: the same calls, and nothing is kept."""

    def before(self, run: Run, batch: Batch) -> None:
        """A step on `batch` is about to be made."""

    def after(self, run: Run) -> None:
        """The step has been made; its gradients are there still."""

    def origin(self, run: Run, step: int) -> Origin | None:  # noqa: ARG002  # as a watch takes them
        """Where a run stopped being finite whose loss was not at `step`; None: not known."""
        return None

    def grad_norm(self, run: Run) -> float | None:
        """Global L2 norm of the last gradient that is known to have been finite."""
        return run.curve[-1].grad_norm if run.curve else None


OFF = NoWatch()


@dataclass
class _Beginning:
    """What a step begins with, so that it can be made once more."""

    step: int
    batch: Batch
    random: Tensor  # state of the CPU's generator: dropout draws the same masks
    state: dict[str, Tensor]  # copies of parameters and buffers


class Watch(NoWatch):
    """Keeps what the last two steps of a run began with: parameters, buffers, batch, random state.

    The copies take a share of a step's time for small models, and change no number of the run.
    A device that is not asked at each step (any but the CPU) tells at the next rung that an
    earlier step was bad: then where it began is not known. After an interruption a new watch
    begins anew.
    """

    def __init__(self) -> None:
        self._kept: list[_Beginning] = []  # at most two, the older first
        self._grad_norm: Tensor | None = None  # ()

    def before(self, run: Run, batch: Batch) -> None:
        """Keep what a step on `batch` begins with."""
        older = self._kept[0].state if len(self._kept) == 2 else {}
        state = _copied(run.model.state_dict(), older)
        begun = _Beginning(run.step + 1, batch, torch.get_rng_state(), state)
        self._kept = [*self._kept[-1:], begun]

    def after(self, run: Run) -> None:
        """Note the norm of the step's gradient if it is finite, without waiting for the device."""
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        before = torch.full_like(norm, math.nan) if self._grad_norm is None else self._grad_norm
        self._grad_norm = torch.where(norm.isfinite(), norm, before)

    def origin(self, run: Run, step: int) -> Origin | None:
        """Where a run stopped being finite whose loss was not at `step`; None: not known.

        The first module, in order of execution, whose output is not finite on the step's batch
        with the weights from before it; if there is none, from the loss backwards the module of
        the first gradient that is not; if there is none, the optimizer's update. A step that began
        with weights that were not finite is not where it began: then that is said of the step
        before. Where all this is finite, and only the rung found something that is not, it is
        looked for with the present weights. Leaves the run as it is, but for its gradients.
        """
        by_step = {begun.step: begun for begun in self._kept}
        if (last := by_step.get(step)) is None:
            return None
        if not _are_finite(last.state[name] for name, _ in run.model.named_parameters()):
            before = by_step.get(step - 1)
            return None if before is None else _made_again(run, before) or UPDATE
        if found := _made_again(run, last):
            return found
        if int(run.segment.bad_step):  # compiled code rounds otherwise: it was not met again
            return None
        return _seen_at_rung(run, last) if weights_finite(run) else UPDATE

    def grad_norm(self, run: Run) -> float | None:
        """Global L2 norm of the last gradient that was finite."""
        norm = math.nan if self._grad_norm is None else float(self._grad_norm)
        return norm if math.isfinite(norm) else super().grad_norm(run)


def diverged(run: Run, step: int, watch: NoWatch) -> Diverged:
    """What is said of a run that stopped being finite at `step`."""
    judged = [metrics for metrics in run.curve if not math.isnan(metrics.val_accuracy)]
    best = max(judged, key=lambda metrics: metrics.val_accuracy, default=None)
    origin = watch.origin(run, step)
    return Diverged(
        step=step,
        images_seen=step * run.config.batch_size,
        lr=run.config.lr,
        best_val_accuracy=best.val_accuracy if best else 0.0,
        best_epoch=best.rung / run.config.train_images if best else None,
        layer=origin.layer if origin else None,
        stage=origin.stage if origin else None,
        grad_norm_before=watch.grad_norm(run),
    )


def weights_finite(run: Run) -> bool:
    """Whether all of the model's parameters are finite; waits for the device."""
    total = nn.utils.get_total_norm(list(run.model.parameters()))
    return math.isfinite(float(total))


def _made_again(run: Run, begun: _Beginning) -> Origin | None:
    """Where a step is not finite as it was `begun`, without its update."""
    loss = run.plain_loss
    with _left_alone(run.model):
        run.model.load_state_dict(begun.state)
        torch.set_rng_state(begun.random)
        return first_non_finite(run.model, loss, *begun.batch)


def _seen_at_rung(run: Run, begun: _Beginning) -> Origin | None:
    """Where the forward pass of a next step on the same batch is not finite, or an evaluation."""
    loss = run.plain_loss
    with _left_alone(run.model):
        found = first_non_finite(run.model, loss, *begun.batch, backward=False)
    if found or not len(run.data.validation):
        return found
    split = run.data.validation.first(run.config.evaluation_batch_size)
    with run.judged() as model, modes_kept(model):
        model.eval()
        loss = loss_of(model, run.config.precision)
        return first_non_finite(model, loss, split.all_pixels(), split.labels, backward=False)


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """Put parameters, buffers and the CPU's random state back at the end as they are now."""
    now = _copied(model.state_dict(), {})
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            model.load_state_dict(now)


def _copied(state: dict[str, Tensor], into: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors, in the memory of `into` where there is any."""
    if not into:
        return {key: value.detach().clone() for key, value in state.items()}
    for key, value in state.items():
        into[key].copy_(value)
    return into


def _are_finite(tensors: Iterator[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
