"""A training run at some position: what is trained, and all that it needs to go on from there."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from models.norms import ProgressiveRepBatchNorm, progressive_norms
from models.profile import Profile, profile
from objectives.batch_stats import copy_statistics, freeze, recalibrated
from objectives.card import Card, card_of
from objectives.data import SearchData
from objectives.errors import StateError
from objectives.execution import FAST, Execution, Loss, autocast
from objectives.images import CPU
from objectives.metrics import RungMetrics
from objectives.optimizing import SetRate
from objectives.peak_memory import peak_memory_bytes
from objectives.recipe import TrainConfig
from objectives.saved import as_saved_now
from objectives.segment import Segment
from objectives.team import ALONE, Alone

EXECUTION_KEYS = ("fused", "capturable")  # of an optimiser's parameter groups
WARM_UP_STEPS = 5  # left out of the throughput: allocation, kernel selection


@dataclass
class Run:
    """A training run at some position: everything that `train` needs to go on from there."""

    config: TrainConfig
    data: SearchData
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    segment: Segment
    loss: Loss  # of the model, in the config's precision
    plain_loss: Loss  # the same, not compiled
    scaler: torch.amp.GradScaler = field(default_factory=lambda: scaler_of(CPU, "float32"))
    set_rate: SetRate | None = None  # None: the learning rate stays
    ema: Any = None  # timm's ModelEmaV3; None: no average of the weights is kept
    is_frozen: bool = False  # BatchNorm keeps its statistics
    peak_bytes: int | None = None  # of memory, in training; None: not known
    execution: Execution = FAST
    team: Alone = ALONE  # who trains it, together with this process
    processes: int = 1  # that have trained it together, at most
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
    def normalisation_batch(self) -> int:
        """Images over which BatchNorm takes its statistics in training, at most."""
        whole = self.config.normalisation_batch
        if self.config.recipe.sync_bn:
            return whole
        return min(whole, -(-self.config.micro_batch // self.team.size))

    @cached_property
    def counted(self) -> Profile:
        """What its own model executes, seen once on a forward pass."""
        return profile(self.model, self.data.shape)

    @property
    def recalibration_pixels(self) -> Tensor:
        """What population statistics are estimated on, as the model takes it."""
        return self.data.train.first(self.config.recalibration_images).all_pixels()

    def begin_step(self) -> None:
        """Set what changes with the run's progress, before a step."""
        self.team.draw_apart(self.config.seed, self.step)
        if self.set_rate is not None:
            self.set_rate(self.step)
        if not self.is_frozen and self.images_seen >= self.config.frozen_from:
            with self.autocast():
                freeze(self.model, self.recalibration_pixels)
            if self.ema is not None:  # averaged weights stand behind the same statistics
                copy_statistics(self.model, self.ema.module)
            self.is_frozen = True

    def end_step(self, loss: Tensor) -> None:
        """Count a step and its detached loss ()."""
        self.step += 1
        self.segment.add(loss, self.step)
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        for norm in self._scheduled:
            norm.set_progress(self.progress)

    def note_peak(self) -> None:
        """Note the memory that training has taken, before an evaluation takes some."""
        known = (self.peak_bytes, peak_memory_bytes(self.device))
        self.peak_bytes = max((peak for peak in known if peak is not None), default=None)

    @cached_property
    def _scheduled(self) -> list[ProgressiveRepBatchNorm]:
        if self.config.recipe.train == "head":
            return []  # all but the classifier stays
        averaged = [] if self.ema is None else progressive_norms(self.ema.module)
        return [*progressive_norms(self.model), *averaged]

    @property
    def judged_model(self) -> nn.Module:
        """The model that is judged: of averaged weights where they are kept."""
        return self.model if self.ema is None else self.ema.module

    @contextmanager
    def judged(self) -> Iterator[nn.Module]:
        """The model that is judged, BN on the population statistics that it is judged on.

        They are estimated for its weights, unless it trains on frozen ones.
        """
        model = self.judged_model
        if self.is_frozen:
            yield model
            return
        with self.autocast(), recalibrated(model, self.recalibration_pixels):
            yield model

    def autocast(self) -> AbstractContextManager[object]:
        """Within it the model computes in the config's precision."""
        return autocast(self.device, self.config.precision)

    @property
    def card(self) -> Card:
        """What its weights are of."""
        return card_of(self.config, self.data.shape, self.data.train)

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
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "is_frozen": self.is_frozen,
            "peak_bytes": self.peak_bytes,
            "processes": self.processes,
            "curve": [asdict(metrics) for metrics in self.curve],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; raises StateError if another run saved it."""
        state = as_saved_now(state)
        mine = {"config": self.config.as_dict(), "checksum": self.data.checksum}
        for name, value in mine.items():
            if state.get(name) != value:
                raise StateError(f"the saved state has another {name}; start the run afresh")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(self._computed_here(state["optimizer"]))
        torch.set_rng_state(state["rng"])
        if state["rng_device"] is not None:
            torch.cuda.set_rng_state(state["rng_device"], self.device)
        self.step = state["step"]
        self.train_time_s = state["train_time_s"]
        self.peak_bytes = state["peak_bytes"]
        self.processes = max(state["processes"], self.team.size)
        sums = ("loss_sum", "bad_step")
        moved = {name: state["segment"][name].to(self.device) for name in sums}
        self.segment = Segment(**{**state["segment"], **moved})
        self.curve = [RungMetrics(**metrics) for metrics in state["curve"]]
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        if state["is_frozen"]:
            freeze(self.model, None)
            self.is_frozen = True

    def _computed_here(self, state: dict[str, Any]) -> dict[str, Any]:
        """The optimiser's `state`, saved perhaps by another execution, for that of this run."""
        groups = self.optimizer.param_groups
        own = [{key: group[key] for key in EXECUTION_KEYS if key in group} for group in groups]
        groups = [{**group, **keys} for group, keys in zip(state["param_groups"], own, strict=True)]
        return {**state, "param_groups": groups}

    def weights(self) -> dict[str, Tensor]:
        """The model's state as it is judged: BN on recalibrated population statistics."""
        with self.judged() as model:
            return {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}


def scaler_of(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Scales losses so that small gradients survive fp16; in other precisions does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
