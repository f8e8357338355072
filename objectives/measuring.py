"""What a run is worth at a rung: its metrics, with BatchNorm on recalibrated statistics."""

import math
import time
from dataclasses import dataclass, replace

from torch import Tensor, nn

from models.fold import fold
from models.norms import batch_norms
from models.two_heads import has_two_heads
from models.unified_norm import unified_norms
from objectives.batch_stats import recalibrated
from objectives.evaluation import Evaluation, evaluate, token_cosine
from objectives.images import Split
from objectives.metrics import RungMetrics, TestMetrics
from objectives.peak_memory import forget_peak
from objectives.run import Run
from objectives.running_stats import mean_shift, statistics
from objectives.segment import Segment
from objectives.stopwatch import synchronize


@dataclass(frozen=True)
class _Judgement:
    """A model on a split: by recalibrated statistics, and by its running averages."""

    judged: Evaluation
    running: Evaluation  # the same where there are no averages
    judged_s: float
    lag: float | None = None  # of the running averages; None: there are none
    cosine: float | None = None  # of class and distillation token; None: there is one token


_UNKNOWN = _Judgement(
    Evaluation(math.nan, math.nan, math.nan), Evaluation(math.nan, math.nan, math.nan), math.nan
)


def measure(run: Run, rung: int, grad_norm: Tensor | None = None) -> RungMetrics:
    """Evaluate at `rung`; uses up the gradients that the last step left.

    `grad_norm` () is their norm, where they have been clipped.

    A step may reach two rungs, if its batch is larger than their distance: nothing has changed
    then since the first of them.
    """
    segment = run.segment
    if segment.steps == 0:
        return replace(run.curve[-1], rung=rung)
    run.note_peak()
    if grad_norm is None:
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        grad_norm = nn.utils.get_total_norm(gradients)
    run.optimizer.zero_grad(set_to_none=True)
    found = _judge(run, run.data.validation) if len(run.data.validation) else _UNKNOWN
    raw = _raw(run) if run.ema is not None and len(run.data.validation) else None
    forget_peak(run.device)
    return RungMetrics(
        rung=rung,
        images_seen=run.images_seen,
        epoch=run.images_seen / run.config.train_images,
        train_loss=float(segment.loss_sum) / segment.steps,
        val_loss=found.judged.loss,
        val_accuracy=found.judged.accuracy,
        val_accuracy_running_stats=found.running.accuracy,
        val_top5_accuracy=found.judged.top5_accuracy,
        grad_norm=float(grad_norm),
        train_time_s=run.train_time_s,
        val_time_s=found.judged_s,
        train_images_per_s=_throughput(segment, run.config.batch_size),
        val_accuracy_raw_weights=raw,
        statistics_lag=found.lag,
        peak_memory_bytes=run.peak_bytes,
        token_cosine=found.cosine,
        **_reached(run, found.judged.accuracy),
    )


def _reached(run: Run, accuracy: float) -> dict[str, float]:
    """When the target accuracy was first reached, by the time of training."""
    target = run.config.target
    before = [m for m in run.curve if m.time_to_target_s is not None]
    if before:
        last = before[-1]
        return {
            "time_to_target_s": last.time_to_target_s or 0.0,
            "epochs_to_target": last.epochs_to_target or 0.0,
        }
    if target is None or not accuracy >= target:
        return {}
    epochs = run.images_seen / run.config.train_images
    return {"time_to_target_s": run.train_time_s, "epochs_to_target": epochs}


def measure_test(run: Run, test: Split) -> TestMetrics:
    """Evaluate a run that has ended on the test images."""
    found = _judge(run, test)
    return TestMetrics(
        test_loss=found.judged.loss,
        test_accuracy=found.judged.accuracy,
        test_accuracy_running_stats=found.running.accuracy,
        test_top5_accuracy=found.judged.top5_accuracy,
        test_time_s=found.judged_s,
        test_images=len(test),
    )


def _judge(run: Run, split: Split) -> _Judgement:
    # Without BN or UN there are no statistics to choose between.
    model = run.judged_model
    averages = batch_norms(model) or unified_norms(model)
    running = _evaluated(run, model, split) if averages else None
    kept = statistics(model)
    began_s = time.perf_counter()
    with run.judged() as model:
        judged = _evaluated(run, model, split)
        synchronize(run.device)
        judged_s = time.perf_counter() - began_s
        lag = mean_shift(kept, statistics(model))
        cosine = _cosine(run, model, split)
    return _Judgement(judged, running or judged, judged_s, lag, cosine)


def _cosine(run: Run, model: nn.Module, split: Split) -> float | None:
    """As the model is, since folding moves the final norm into the heads."""
    if not has_two_heads(model):
        return None
    with run.autocast():
        return token_cosine(model, split, run.config.evaluation_batch_size)


def _raw(run: Run) -> float:
    """The accuracy of the weights as they are trained, where averaged ones are judged."""
    if run.is_frozen:
        return _evaluated(run, run.model, run.data.validation).accuracy
    with run.autocast(), recalibrated(run.model, run.recalibration_pixels):
        return _evaluated(run, run.model, run.data.validation).accuracy


def _evaluated(run: Run, model: nn.Module, split: Split) -> Evaluation:
    """With the statistics that the norms hold now."""
    model = fold(model).model if run.execution.folded else model
    with run.autocast():
        return evaluate(model, split, run.config.evaluation_batch_size)


def _throughput(segment: Segment, batch_size: int) -> float | None:
    """Images per second; None where the segment had no step beyond the warm-up."""
    return segment.timed_steps * batch_size / segment.timed_s if segment.timed_s else None
