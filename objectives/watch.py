"""What is told of a run that stopped being finite; watched closely, also where that began."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from objectives.execution import loss_of
from objectives.feed import Batch
from objectives.metrics import Diverged
from objectives.nonfinite import first_non_finite
from objectives.run import Run

OPTIMIZER = "optimizer"  # only the update was not finite


class NoWatch:
    """Training without a watch: the same calls, and nothing is kept."""

    def before(self, run: Run, batch: Batch) -> None:
        """A step on `batch` is about to be made."""

    def after(self, run: Run) -> None:
        """The step has been made; its gradients are there still."""

    def layer(self, run: Run, step: int) -> str | None:  # noqa: ARG002  # as a watch takes them
        """Where the step numbered `step` stopped being finite; None: not known."""
        return None

    def grad_norm(self, run: Run) -> float | None:
        """Global L2 norm of the last gradient that is known to have been finite."""
        return run.curve[-1].grad_norm if run.curve else None


class Watch(NoWatch):
    """Keeps what the last step of a run began with, so that it can be made once more.

    That is a copy of parameters and buffers, the batch, and the random state of the CPU: a share
    of a step's time for small models, and nothing that changes a number of the run. A device that
    is not asked at each step (any but the CPU) tells at the next rung that an earlier step was
    bad: then the layer is not known. After an interruption a new watch begins anew.
    """

    def __init__(self) -> None:
        self._step = 0  # the one that the following was kept for; 0: none yet
        self._batch: Batch | None = None
        self._state: dict[str, Tensor] = {}
        self._random = torch.empty(0)
        self._grad_norm: Tensor | None = None  # ()

    def before(self, run: Run, batch: Batch) -> None:
        """Keep what a step on `batch` begins with."""
        self._step, self._batch = run.step + 1, batch
        self._random = torch.get_rng_state()
        now = run.model.state_dict()
        if not self._state:
            self._state = _copied(now)
            return
        for key, value in now.items():
            self._state[key].copy_(value)

    def after(self, run: Run) -> None:
        """Note the norm of the step's gradient if it is finite, without waiting for the device."""
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        before = torch.full_like(norm, math.nan) if self._grad_norm is None else self._grad_norm
        self._grad_norm = torch.where(norm.isfinite(), norm, before)

    def layer(self, run: Run, step: int) -> str | None:
        """Where the step numbered `step` stopped being finite; None: not known.

        The first module, in order of execution, whose output is not finite with the weights from
        before the step; if there is none, from the loss backwards the module of the first gradient
        that is not; if there is none, "optimizer" where the step's weights are not. What was seen
        at a rung only, with sound weights, is looked for in what the next step would have begun
        with. Leaves weights, statistics and random state of the run as they are.
        """
        if self._step != step or self._batch is None:
            return None
        with _kept(run.model), torch.random.fork_rng(devices=[]):
            run.model.load_state_dict(self._state)
            if found := self._first(run):
                return found
        if int(run.segment.bad_step):  # compiled code rounds otherwise: it was not met again
            return None
        if not weights_finite(run):
            return OPTIMIZER
        with _kept(run.model), torch.random.fork_rng(devices=[]):
            return self._first(run, backward=False)

    def grad_norm(self, run: Run) -> float | None:
        """Global L2 norm of the last gradient that was finite."""
        norm = math.nan if self._grad_norm is None else float(self._grad_norm)
        return norm if math.isfinite(norm) else super().grad_norm(run)

    def _first(self, run: Run, backward: bool = True) -> str | None:
        assert self._batch is not None
        torch.set_rng_state(self._random)  # dropout draws the same masks
        loss = loss_of(run.model, run.config.precision)
        return first_non_finite(run.model, loss, *self._batch, backward)


OFF = NoWatch()


def diverged(run: Run, step: int, watch: NoWatch) -> Diverged:
    """What is said of a run that stopped being finite at `step`."""
    judged = [metrics for metrics in run.curve if not math.isnan(metrics.val_accuracy)]
    best = max(judged, key=lambda metrics: metrics.val_accuracy, default=None)
    return Diverged(
        step=step,
        images_seen=step * run.config.batch_size,
        lr=run.config.lr,
        best_val_accuracy=best.val_accuracy if best else 0.0,
        best_epoch=best.epoch if best else None,
        layer=watch.layer(run, step),
        grad_norm_before=watch.grad_norm(run),
    )


def weights_finite(run: Run) -> bool:
    """Whether all of the model's parameters are finite; waits for the device."""
    total = nn.utils.get_total_norm(list(run.model.parameters()))
    return math.isfinite(float(total))


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Put parameters and buffers back at the end as they are now."""
    now = _copied(model.state_dict())
    try:
        yield
    finally:
        model.load_state_dict(now)


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}
