"""One training run: a generator of metrics. Callers decide what to do with each."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.norms import batch_norms, progressive_norms
from models.unified_norm import unified_norms
from objectives.batch_stats import recalibrated
from objectives.card import Card, card_of
from objectives.data import SearchData
from objectives.errors import StateError
from objectives.evaluation import evaluate, sums_dtype
from objectives.feed import Batch, feed
from objectives.initial import initial_model
from objectives.metrics import Diverged, Event, Pause, RungMetrics
from objectives.order import batches
from objectives.recipe import TrainConfig

WARM_UP_STEPS = 5  # left out of the throughput: allocation, kernel selection


@dataclass
class Segment:
    """Sums over the steps since the last rung, on the device so that adding never waits for it."""

    loss_sum: Tensor  # ()
    bad_step: Tensor  # () int64: the first step whose loss was not finite; 0: none
    steps: int = 0
    timed_steps: int = 0  # without warm-up
    timed_s: float = 0.0

    @classmethod
    def empty(cls, device: torch.device) -> "Segment":
        """A segment without steps."""
        zero = torch.zeros((), dtype=sums_dtype(device), device=device)
        return cls(zero, torch.zeros((), dtype=torch.int64, device=device))

    def add(self, loss: Tensor, step: int) -> None:
        """Count the step numbered `step`, with its detached loss ()."""
        self.steps += 1
        self.loss_sum += loss
        self.bad_step += ((self.bad_step == 0) & ~torch.isfinite(loss)) * step


@dataclass
class Run:
    """A training run at some position: everything that `train` needs to go on from there."""

    config: TrainConfig
    data: SearchData
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    segment: Segment
    step: int = 0
    train_time_s: float = 0.0
    curve: list[RungMetrics] = field(default_factory=list)
    warm_up_left: int = WARM_UP_STEPS  # of this process; not part of the saved state

    @property
    def images_seen(self) -> int:
        """Images trained on so far."""
        return self.step * self.config.batch_size

    @property
    def progress(self) -> float:
        """The share of the run that is done, in [0, 1]."""
        return min(self.images_seen / self.config.rungs[-1], 1.0)

    @property
    def card(self) -> Card:
        """What its weights are of."""
        config, data = self.config, self.data
        return card_of(config.model, asdict(config.switches), data.shape, data.train)

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-for-bit continuation needs, as tensors and plain values."""
        cuda = self.device.type == "cuda"
        return {
            "config": self.config.as_dict(),
            "checksum": self.data.checksum,
            "card": asdict(self.card),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_device": torch.cuda.get_rng_state(self.device) if cuda else None,
            "step": self.step,
            "train_time_s": self.train_time_s,
            "segment": dict(vars(self.segment)),
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
        sums = ("loss_sum", "bad_step")
        moved = {name: state["segment"][name].to(self.device) for name in sums}
        self.segment = Segment(**{**state["segment"], **moved})
        self.curve = [RungMetrics(**metrics) for metrics in state["curve"]]

    def weights(self) -> dict[str, Tensor]:
        """The model's state as it is judged: BN on recalibrated population statistics."""
        with recalibrated(self.model, _recalibration_pixels(self)):
            return {
                key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()
            }


def start(config: TrainConfig, data: SearchData, device: torch.device) -> Run:
    """A run at its beginning. `config.seed` fixes the weights, the data order and dropout.

    Sets this process's random state, flushes denormals (in a saturated softmax they slow a CPU a
    hundredfold without changing what is learned), and keeps float32 products in float32.
    """
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(config.seed)
    data = data.to(device)
    model = initial_model(config, data)
    for norm in progressive_norms(model):
        norm.set_progress(0.0)  # trained weights may come with the end of another run
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    return Run(config, data, device, model, optimizer, Segment.empty(device))


def train(run: Run, pause: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train `run` to its last rung, yielding the metrics of each rung as it is reached.

    Ends with `Diverged` where a loss, a gradient or the weights stop being finite. `pause` is
    asked after each step: while it says yes a `Pause` is yielded, and training goes on with the
    next value. The run's state is consistent whenever a value has been yielded, and can be saved
    then.
    """
    config = run.config
    images = run.data.train
    order = batches(
        config.train_images, config.batch_size, config.seed, run.images_seen, images.images.device
    )
    source = feed(images, order)
    for rung in config.rungs[len(run.curve) :]:
        yield from _train_to(run, rung, source, pause)
        if bad_step := int(run.segment.bad_step) or (0 if _weights_finite(run) else run.step):
            yield _diverged(run, bad_step)
            return
        metrics = _measure(run, rung)
        if not math.isfinite(metrics.val_loss + metrics.grad_norm):
            yield _diverged(run, run.step)
            return
        run.curve.append(metrics)
        run.segment = Segment.empty(run.device)
        yield metrics


def _train_to(
    run: Run, rung: int, source: Iterator[Batch], pause: Callable[[], bool]
) -> Iterator[Pause]:
    watch = _Stopwatch(run)
    scheduled = progressive_norms(run.model)
    while run.images_seen < rung:
        _step(run, next(source), keep_gradients=run.images_seen + run.config.batch_size >= rung)
        for norm in scheduled:
            norm.set_progress(run.progress)
        watch.tick()
        if run.device.type == "cpu" and int(run.segment.bad_step):
            break  # reading the loss costs nothing on CPU; elsewhere it would stall the device
        if run.images_seen < rung and pause():
            watch.stop()
            yield Pause(run.images_seen)
            watch = _Stopwatch(run)
    watch.stop()


def _step(run: Run, batch: Batch, keep_gradients: bool) -> None:
    """One optimiser step; gradients are freed unless a rung's metrics want their norm."""
    pixels, labels = batch
    loss = F.cross_entropy(run.model(pixels), labels)
    loss.backward()
    run.optimizer.step()
    run.step += 1
    run.segment.add(loss.detach(), run.step)
    if not keep_gradients:
        run.optimizer.zero_grad(set_to_none=True)


class _Stopwatch:
    """Times the steps of one stretch; the first steps of a process count as warm-up."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.steps = 0
        self.warm_up = run.warm_up_left
        self.warm_up_s = 0.0
        _synchronize(run.device)
        self.began_s = time.perf_counter()

    def tick(self) -> None:
        """Count one step."""
        self.steps += 1
        if self.steps == self.warm_up:
            _synchronize(self.run.device)
            self.warm_up_s = time.perf_counter() - self.began_s

    def stop(self) -> None:
        """Wait for the device and add the stretch to the run's times."""
        _synchronize(self.run.device)
        elapsed_s = time.perf_counter() - self.began_s
        self.run.train_time_s += elapsed_s
        self.run.warm_up_left = max(self.warm_up - self.steps, 0)
        if self.steps > self.warm_up:
            self.run.segment.timed_steps += self.steps - self.warm_up
            self.run.segment.timed_s += elapsed_s - self.warm_up_s


def _measure(run: Run, rung: int) -> RungMetrics:
    """Evaluate at `rung`; uses up the gradients that the last step left.

    A step may reach two rungs, if its batch is larger than their distance: nothing has changed
    then since the first of them.
    """
    segment = run.segment
    if segment.steps == 0:
        return replace(run.curve[-1], rung=rung)
    gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
    grad_norm = float(nn.utils.get_total_norm(gradients))
    run.optimizer.zero_grad(set_to_none=True)
    validation, batch_size = run.data.validation, run.config.evaluation_batch_size
    # Without BN or UN there are no statistics to choose between.
    averages = batch_norms(run.model) or unified_norms(run.model)
    running = evaluate(run.model, validation, batch_size) if averages else None
    began_s = time.perf_counter()
    with recalibrated(run.model, _recalibration_pixels(run)):
        judged = evaluate(run.model, validation, batch_size)
    _synchronize(run.device)
    return RungMetrics(
        rung=rung,
        images_seen=run.images_seen,
        epoch=run.images_seen / run.config.train_images,
        train_loss=float(segment.loss_sum) / segment.steps,
        val_loss=judged.loss,
        val_accuracy=judged.accuracy,
        val_accuracy_running_stats=(running or judged).accuracy,
        val_top5_accuracy=judged.top5_accuracy,
        grad_norm=grad_norm,
        train_time_s=run.train_time_s,
        val_time_s=time.perf_counter() - began_s,
        train_images_per_s=_throughput(segment, run.config.batch_size),
    )


def _throughput(segment: Segment, batch_size: int) -> float | None:
    """Images per second; None where the segment had no step beyond the warm-up."""
    return segment.timed_steps * batch_size / segment.timed_s if segment.timed_s else None


def _diverged(run: Run, step: int) -> Diverged:
    return Diverged(
        step=step,
        images_seen=step * run.config.batch_size,
        lr=run.config.lr,
        best_val_accuracy=max((metrics.val_accuracy for metrics in run.curve), default=0.0),
    )


def _recalibration_pixels(run: Run) -> Tensor:
    return run.data.train.first(run.config.recalibration_images).all_pixels()


def _weights_finite(run: Run) -> bool:
    total = nn.utils.get_total_norm(list(run.model.parameters()))
    return math.isfinite(float(total))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
