"""What a training run reports: frozen records, units in the names."""

from dataclasses import dataclass
from typing import Literal

Stage = Literal["output", "gradient", "update"]  # of a step, in the order in which they come


@dataclass(frozen=True)
class RungMetrics:
    """State of a run at one rung. Accuracies are shares in [0, 1]."""

    rung: int  # the rung's number of images, the step under which it is reported
    images_seen: int  # images really trained on: the first step that reaches the rung
    epoch: float
    train_loss: float  # mean over the images since the last rung
    val_loss: float  # NaN, as all of val_…: there is no validation split
    val_accuracy: float  # on recalibrated statistics where the model has BN
    val_accuracy_running_stats: float
    val_top5_accuracy: float
    grad_norm: float  # global L2 norm at the rung's last step
    train_time_s: float  # since the start of the run, evaluation excluded
    val_time_s: float  # of this rung's evaluation, recalibration included
    train_images_per_s: float | None  # since the last rung; None: all its steps were warm-up
    # None: there is no such thing in the run, or it cannot be told.
    val_accuracy_raw_weights: float | None = None  # of the weights themselves beside their average
    statistics_lag: float | None = None  # of BN's running means, in standard deviations
    peak_memory_bytes: int | None = None  # of the device, or of this process, since the run began
    time_to_target_s: float | None = None  # of training, at the first rung that reached the target
    epochs_to_target: float | None = None
    token_cosine: float | None = None  # of class and distillation token, mean over images


@dataclass(frozen=True)
class TestMetrics:
    """A run at its end on the test images, which nothing before has read."""

    __test__ = False  # no class of tests, whatever pytest takes it for

    test_loss: float
    test_accuracy: float  # a share, on recalibrated statistics where the model has BN
    test_accuracy_running_stats: float
    test_top5_accuracy: float
    test_time_s: float  # of one evaluation, recalibration included
    test_images: int


@dataclass(frozen=True)
class Diverged:
    """Loss or weights stopped being finite; a result, not a failure."""

    step: int  # optimiser step whose loss was the first not finite, from 1
    images_seen: int
    lr: float
    best_val_accuracy: float  # at the rungs before; 0 where there was none
    best_epoch: float | None = None  # at which that was reached; None: there was no rung
    layer: str | None = None  # path of the module where it began; None: not known
    stage: Stage | None = None  # what of it was not finite
    grad_norm_before: float | None = None  # global L2 norm of the last finite gradient known


@dataclass(frozen=True)
class Pause:
    """Between two steps, because the caller asked: save the run, leave it, or go on."""

    images_seen: int


Event = RungMetrics | Diverged | Pause
