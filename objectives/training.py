"""One training run: a generator of metrics. Callers decide what to do with each."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.registry import variant
from objectives.batch_stats import recalibrated
from objectives.data import SearchData, as_pixels
from objectives.errors import StateError
from objectives.evaluation import evaluate
from objectives.metrics import Diverged, Event, RungMetrics
from objectives.order import batches
from objectives.recipe import TrainConfig

WARM_UP_STEPS = 5  # left out of the throughput: allocation, kernel selection


@dataclass
class Run:
    """A training run at some position: everything that `train` needs to go on from there."""

    config: TrainConfig
    data: SearchData
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    train_time_s: float = 0.0
    curve: list[RungMetrics] = field(default_factory=list)

    @property
    def images_seen(self) -> int:
        """Images trained on so far."""
        return self.step * self.config.batch_size

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-for-bit continuation needs, as tensors and plain values."""
        cuda = self.device.type == "cuda"
        return {
            "config": self.config.as_dict(),
            "checksum": self.data.checksum,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_device": torch.cuda.get_rng_state(self.device) if cuda else None,
            "step": self.step,
            "train_time_s": self.train_time_s,
            "curve": [asdict(metrics) for metrics in self.curve],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; raises StateError if another run saved it."""
        mine = {"config": self.config.as_dict(), "checksum": self.data.checksum}
        for name, value in mine.items():
            if state.get(name) != value:
                raise StateError(f"the saved state has another {name}; start the run afresh")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if state["rng_device"] is not None:
            torch.cuda.set_rng_state(state["rng_device"], self.device)
        self.step = state["step"]
        self.train_time_s = state["train_time_s"]
        self.curve = [RungMetrics(**metrics) for metrics in state["curve"]]

    def weights(self) -> dict[str, Tensor]:
        """The model's state as it is judged: BN on recalibrated population statistics."""
        with recalibrated(self.model, _recalibration_pixels(self)):
            return {key: value.detach().cpu().clone() for key, value in self._state().items()}

    def _state(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())


def start(config: TrainConfig, data: SearchData, device: torch.device) -> Run:
    """A run at its beginning. `config.seed` fixes the weights, the data order and dropout.

    Sets this process's random state and flushes denormals: in a saturated softmax they slow a
    CPU a hundredfold without changing what is learned.
    """
    torch.set_flush_denormal(True)
    torch.manual_seed(config.seed)
    model = variant(config.model).build(data.shape, config.switches).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    return Run(config, data.to(device), device, model, optimizer)


def train(run: Run) -> Iterator[Event]:
    """Train `run` to its last rung, yielding the metrics of each rung as it is reached.

    Ends with `Diverged` where the loss or the weights stop being finite. The run's state is
    consistent whenever a value has been yielded, and can be saved then.
    """
    order = batches(
        run.config.train_images, run.config.batch_size, run.config.seed, run.images_seen, run.device
    )
    for rung in run.config.rungs[len(run.curve) :]:
        event = _train_to(run, rung, order)
        if isinstance(event, RungMetrics):
            run.curve.append(event)
        yield event
        if isinstance(event, Diverged):
            return


def _train_to(run: Run, rung: int, order: Iterator[Tensor]) -> Event:
    segment = _Segment(run)
    while run.images_seen < rung:
        is_last = run.images_seen + run.config.batch_size >= rung
        segment.add(_step(run, next(order), is_last))
        if run.device.type == "cpu" and segment.first_bad_step():
            break  # reading the loss costs nothing on CPU; elsewhere it would stall the device
    segment.close()
    if bad_step := segment.first_bad_step() or (0 if _weights_finite(run.model) else run.step):
        return _diverged(run, bad_step)
    return _measure(run, rung, segment)


@dataclass(frozen=True)
class _StepResult:
    loss: Tensor  # () on the device
    grad_norm: Tensor | None  # () on the device, at the last step before a rung


def _step(run: Run, indices: Tensor, is_last: bool) -> _StepResult:
    pixels = as_pixels(run.data.train.images[indices])
    loss = F.cross_entropy(run.model(pixels), run.data.train.labels[indices])
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    grad_norm = None
    if is_last:
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        grad_norm = nn.utils.get_total_norm(gradients)
    run.optimizer.step()
    run.step += 1
    return _StepResult(loss.detach(), grad_norm)


class _Segment:
    """Sums and times of the steps between two rungs; reads the device only when asked."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.steps = 0
        self.grad_norm = torch.zeros((), device=run.device)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=run.device)
        self._bad_step = torch.zeros((), dtype=torch.int64, device=run.device)
        self._warm_up = WARM_UP_STEPS if not run.curve else 0
        self._warm_up_s = 0.0
        _synchronize(run.device)
        self._began_s = time.perf_counter()
        self.elapsed_s = 0.0

    def add(self, result: _StepResult) -> None:
        """Count one step."""
        self.steps += 1
        self._loss_sum += result.loss
        first_bad = (self._bad_step == 0) & ~torch.isfinite(result.loss)
        self._bad_step += first_bad * self.run.step
        if result.grad_norm is not None:
            self.grad_norm = result.grad_norm
        if self.steps == self._warm_up:
            _synchronize(self.run.device)
            self._warm_up_s = time.perf_counter() - self._began_s

    def close(self) -> None:
        """Wait for the device and add the segment's time to the run's."""
        _synchronize(self.run.device)
        self.elapsed_s = time.perf_counter() - self._began_s
        self.run.train_time_s += self.elapsed_s

    def first_bad_step(self) -> int:
        """The first step whose loss was not finite; 0 if there was none."""
        return int(self._bad_step)

    def train_loss(self) -> float:
        """Mean loss of the segment."""
        return float(self._loss_sum) / max(self.steps, 1)

    def images_per_s(self) -> float:
        """Throughput after the warm-up steps; of all steps where there are no others."""
        measured = self.steps - self._warm_up
        if measured <= 0:
            return self.steps * self.run.config.batch_size / self.elapsed_s
        return measured * self.run.config.batch_size / (self.elapsed_s - self._warm_up_s)


def _measure(run: Run, rung: int, segment: _Segment) -> RungMetrics:
    validation, batch_size = run.data.validation, run.config.evaluation_batch_size
    running = evaluate(run.model, validation, batch_size)
    began_s = time.perf_counter()
    with recalibrated(run.model, _recalibration_pixels(run)):
        judged = evaluate(run.model, validation, batch_size)
    _synchronize(run.device)
    return RungMetrics(
        rung=rung,
        images_seen=run.images_seen,
        epoch=run.images_seen / run.config.train_images,
        train_loss=segment.train_loss(),
        val_loss=judged.loss,
        val_accuracy=judged.accuracy,
        val_accuracy_running_stats=running.accuracy,
        val_top5_accuracy=judged.top5_accuracy,
        grad_norm=float(segment.grad_norm),
        train_time_s=run.train_time_s,
        val_time_s=time.perf_counter() - began_s,
        train_images_per_s=segment.images_per_s(),
    )


def _diverged(run: Run, step: int) -> Diverged:
    return Diverged(
        step=step,
        images_seen=step * run.config.batch_size,
        lr=run.config.lr,
        best_val_accuracy=max((metrics.val_accuracy for metrics in run.curve), default=0.0),
    )


def _recalibration_pixels(run: Run) -> Tensor:
    return as_pixels(run.data.train.images[: run.config.recalibration_images])


def _weights_finite(model: nn.Module) -> bool:
    total = nn.utils.get_total_norm(list(model.parameters()))
    return math.isfinite(float(total))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
