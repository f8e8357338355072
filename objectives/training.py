"""One training run: a generator of metrics. Callers decide what to do with each."""

import math
from collections.abc import Callable, Iterator

from models.norms import progressive_norms
from objectives.feed import Batch, feed
from objectives.measuring import measure
from objectives.metrics import Event, Pause
from objectives.order import batches
from objectives.run import Run, Segment
from objectives.steps import CudaRecorder, GraphedStep, PlainStep, Step
from objectives.stopwatch import Stopwatch
from objectives.watch import OFF, NoWatch, diverged, weights_finite


def train(
    run: Run, pause: Callable[[], bool] = lambda: False, watch: NoWatch = OFF
) -> Iterator[Event]:
    """Train `run` to its last rung, yielding the metrics of each rung as it is reached.

    Ends with `Diverged` where a loss, a gradient or the weights stop being finite. `pause` is
    asked after each step: while it says yes a `Pause` is yielded, and training goes on with the
    next value. The run's state is consistent whenever a value has been yielded, and can be saved
    then. `watch` sees each step before and after; it changes none.
    """
    config = run.config
    images = run.data.train
    order = batches(
        config.train_images, config.batch_size, config.seed, run.images_seen, images.images.device
    )
    source = feed(images, order)
    step = _stepper(run)
    for rung in config.rungs[len(run.curve) :]:
        yield from _train_to(run, rung, step, source, pause, watch)
        if bad_step := int(run.segment.bad_step) or (0 if weights_finite(run) else run.step):
            yield diverged(run, bad_step, watch)
            return
        metrics = measure(run, rung)
        is_judged = len(run.data.validation) > 0
        if not math.isfinite(metrics.grad_norm + (metrics.val_loss if is_judged else 0.0)):
            yield diverged(run, run.step, watch)
            return
        run.curve.append(metrics)
        run.segment = Segment.empty(run.device)
        yield metrics


def _train_to(
    run: Run,
    rung: int,
    step: Step,
    source: Iterator[Batch],
    pause: Callable[[], bool],
    watch: NoWatch,
) -> Iterator[Pause]:
    clock = Stopwatch(run)
    scheduled = progressive_norms(run.model)
    while run.images_seen < rung:
        batch = next(source)
        watch.before(run, batch)
        loss = step(*batch)
        watch.after(run)
        run.step += 1
        run.segment.add(loss, run.step)
        for norm in scheduled:
            norm.set_progress(run.progress)
        clock.tick()
        if run.device.type == "cpu" and int(run.segment.bad_step):
            break  # reading the loss costs nothing on CPU; elsewhere it would stall the device
        if run.images_seen < rung and pause():
            clock.stop()
            yield Pause(run.images_seen)
            clock = Stopwatch(run)
    clock.stop()


def _stepper(run: Run) -> Step:
    plain = PlainStep(run.loss, run.optimizer)
    return GraphedStep(plain, CudaRecorder(run.device)) if run.execution.graphed else plain
