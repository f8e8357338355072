"""One training run: a generator of metrics. Callers decide what to do with each."""

import math
from collections.abc import Callable, Iterator

from objectives.augmentation import augmentation
from objectives.feed import Batch, feed
from objectives.measuring import measure
from objectives.metrics import Event, Pause
from objectives.order import batches
from objectives.run import Run, Segment
from objectives.steps import CudaRecorder, GraphedStep, PlainStep, RecipeStep, Step
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
        config.train_images,
        config.batch_size,
        config.seed,
        run.images_seen,
        images.images.device,
        config.recipe.repeats,
    )
    source = feed(images, order, augmentation(config.recipe, run.data.shape, config.seed, run.step))
    step = _stepper(run)
    for rung in config.rungs[len(run.curve) :]:
        yield from _train_to(run, rung, step, source, pause, watch)
        if bad_step := int(run.segment.bad_step) or (0 if weights_finite(run) else run.step):
            yield diverged(run, bad_step, watch)
            return
        metrics = measure(run, rung, step.grad_norm)
        is_judged = len(run.data.validation) > 0
        # A gradient that is too large for fp16 is left out, and the next loss scaled less.
        norm = 0.0 if run.scaler.is_enabled() else metrics.grad_norm
        if not math.isfinite(norm + (metrics.val_loss if is_judged else 0.0)):
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
    while run.images_seen < rung:
        run.begin_step()
        batch = next(source)
        watch.before(run, batch)
        loss = step(*batch)
        watch.after(run)
        run.end_step(loss)
        clock.tick()
        if run.device.type == "cpu" and int(run.segment.bad_step):
            break  # reading the loss costs nothing on CPU; elsewhere it would stall the device
        if run.images_seen < rung and pause():
            clock.stop()
            yield Pause(run.images_seen)
            clock = Stopwatch(run)
    clock.stop()


def _stepper(run: Run) -> Step:
    recipe = run.config.recipe
    if recipe.accumulate > 1 or recipe.clip is not None or run.scaler.is_enabled():
        parts = min(recipe.accumulate, run.config.batch_size)
        return RecipeStep(run.loss, run.optimizer, run.scaler, parts, recipe.clip)
    plain = PlainStep(run.loss, run.optimizer)
    return GraphedStep(plain, CudaRecorder(run.device)) if run.execution.graphed else plain
