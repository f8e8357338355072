"""A training run at some position: what is trained, and all that it needs to go on from there."""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from models.norms import progressive_norms
from models.profile import Profile, profile
from models.vit import merge_attention
from objectives.batch_stats import recalibrated
from objectives.card import Card, card_of
from objectives.compiling import compiled, possible
from objectives.data import SearchData
from objectives.errors import StateError
from objectives.evaluation import sums_dtype
from objectives.execution import FAST, Execution, Loss, autocast, loss_of
from objectives.initial import initial_model
from objectives.metrics import RungMetrics
from objectives.recipe import TrainConfig

EXECUTION_KEYS = ("fused", "capturable")  # of an optimiser's parameter groups
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
    loss: Loss  # of the model, in the config's precision
    execution: Execution = FAST
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

    @cached_property
    def counted(self) -> Profile:
        """What its own model executes, seen once on a forward pass."""
        return profile(self.model, self.data.shape)

    @property
    def recalibration_pixels(self) -> Tensor:
        """What population statistics are estimated on, as the model takes it."""
        return self.data.train.first(self.config.recalibration_images).all_pixels()

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
            "curve": [asdict(metrics) for metrics in self.curve],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; raises StateError if another run saved it."""
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
        sums = ("loss_sum", "bad_step")
        moved = {name: state["segment"][name].to(self.device) for name in sums}
        self.segment = Segment(**{**state["segment"], **moved})
        self.curve = [RungMetrics(**metrics) for metrics in state["curve"]]

    def _computed_here(self, state: dict[str, Any]) -> dict[str, Any]:
        """The optimiser's `state`, saved perhaps by another execution, for that of this run."""
        own = [{key: group[key] for key in EXECUTION_KEYS} for group in self.optimizer.param_groups]
        groups = [{**group, **keys} for group, keys in zip(state["param_groups"], own, strict=True)]
        return {**state, "param_groups": groups}

    def weights(self) -> dict[str, Tensor]:
        """The model's state as it is judged: BN on recalibrated population statistics."""
        with self.autocast(), recalibrated(self.model, self.recalibration_pixels):
            return {
                key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()
            }


def start(
    config: TrainConfig, data: SearchData, device: torch.device, execution: Execution = FAST
) -> Run:
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
    execution = possible(execution, model, device)
    execution = replace(execution, merged=merge_attention(model, execution.merged))
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.lr, fused=execution.fused, capturable=execution.graphed
    )
    loss = loss_of(model, config.precision)
    if execution.compiled:
        loss = compiled(loss)
    segment = Segment.empty(device)
    return Run(config, data, device, model, optimizer, segment, loss, execution)
