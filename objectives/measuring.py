"""What a run is worth at a rung: its metrics, with BatchNorm on recalibrated statistics."""

import math
import time
from dataclasses import dataclass, replace

from torch import nn

from models.fold import fold
from models.norms import batch_norms
from models.unified_norm import unified_norms
from objectives.batch_stats import recalibrated
from objectives.evaluation import Evaluation, evaluate
from objectives.images import Split
from objectives.metrics import RungMetrics, TestMetrics
from objectives.run import Run, Segment
from objectives.stopwatch import synchronize


@dataclass(frozen=True)
class _Judgement:
    """A model on a split: by recalibrated statistics, and by its running averages."""

    judged: Evaluation
    running: Evaluation  # the same where there are no averages
    judged_s: float


_UNKNOWN = _Judgement(
    Evaluation(math.nan, math.nan, math.nan), Evaluation(math.nan, math.nan, math.nan), math.nan
)


def measure(run: Run, rung: int) -> RungMetrics:
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
    found = _judge(run, run.data.validation) if len(run.data.validation) else _UNKNOWN
    return RungMetrics(
        rung=rung,
        images_seen=run.images_seen,
        epoch=run.images_seen / run.config.train_images,
        train_loss=float(segment.loss_sum) / segment.steps,
        val_loss=found.judged.loss,
        val_accuracy=found.judged.accuracy,
        val_accuracy_running_stats=found.running.accuracy,
        val_top5_accuracy=found.judged.top5_accuracy,
        grad_norm=grad_norm,
        train_time_s=run.train_time_s,
        val_time_s=found.judged_s,
        train_images_per_s=_throughput(segment, run.config.batch_size),
    )


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
    averages = batch_norms(run.model) or unified_norms(run.model)
    running = _evaluated(run, split) if averages else None
    began_s = time.perf_counter()
    with run.autocast(), recalibrated(run.model, run.recalibration_pixels):
        judged = _evaluated(run, split)
    synchronize(run.device)
    return _Judgement(judged, running or judged, time.perf_counter() - began_s)


def _evaluated(run: Run, split: Split) -> Evaluation:
    """With the statistics that the norms hold now."""
    fold_it = run.execution.folded
    model = fold(run.model).model if fold_it else run.model
    with run.autocast():
        return evaluate(model, split, run.config.evaluation_batch_size)


def _throughput(segment: Segment, batch_size: int) -> float | None:
    """Images per second; None where the segment had no step beyond the warm-up."""
    return segment.timed_steps * batch_size / segment.timed_s if segment.timed_s else None
