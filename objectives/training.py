"""One training run: a generator of metrics. Callers decide what to do with each."""

import math
from collections.abc import Callable, Generator, Iterator
from functools import partial

from objectives.augmentation import augmentation
from objectives.feed import Batch, feed
from objectives.measuring import measure
from objectives.metrics import Diverged, Event, Pause, RungMetrics
from objectives.order import batches
from objectives.run import Run
from objectives.segment import Segment
from objectives.steps import CudaRecorder, GraphedStep, PlainStep, RecipeStep, Step
from objectives.stopwatch import Stopwatch
from objectives.watch import OFF, NoWatch, diverged, weights_finite


def train(
    run: Run, pause: Callable[[], bool] = lambda: False, watch: NoWatch = OFF
) -> Generator[Event]:
    """Train `run` to its last rung, yielding the metrics of each rung as it is reached.

    Ends with `Diverged` where a loss, a gradient or the weights stop being finite. `pause` is
    asked after each step: while it says yes a `Pause` is yielded, and training goes on with the
    next value. The run's state is consistent whenever a value has been yielded, and can be saved
    then. `watch` sees each step before and after; it changes none.

    Each process of the run's team calls this, and gets the same events: the first judges, is asked
    by `pause`, and ends the run for all where it closes this generator.
    """
    return run.team.lockstep(_events(run, pause, watch))


def _events(run: Run, pause: Callable[[], bool], watch: NoWatch) -> Generator[Event]:
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
        found = run.team.shared(partial(_judged, run, rung, step, watch))
        if isinstance(found, RungMetrics):
            run.curve.append(found)
            run.segment = Segment.empty(run.device)
        yield found
        if isinstance(found, Diverged):
            return


def _judged(run: Run, rung: int, step: Step, watch: NoWatch) -> RungMetrics | Diverged:
    """What is to be said of a run that has come to `rung`, or to a step that was not finite."""
    if bad_step := int(run.segment.bad_step) or (0 if weights_finite(run) else run.step):
        return diverged(run, bad_step, watch)
    metrics = measure(run, rung, step.grad_norm)
    is_judged = len(run.data.validation) > 0
    # A gradient that is too large for fp16 is left out, and the next loss scaled less.
    norm = 0.0 if run.scaler.is_enabled() else metrics.grad_norm
    if not math.isfinite(norm + (metrics.val_loss if is_judged else 0.0)):
        return diverged(run, run.step, watch)
    return metrics


def _train_to(
    run: Run,
    rung: int,
    step: Step,
    source: Iterator[Batch],
    pause: Callable[[], bool],
    watch: NoWatch,
) -> Iterator[Pause]:
    def advance() -> bool:
        _advance(run, step, source, watch)
        return run.images_seen < rung and pause()

    clock = Stopwatch(run)
    while run.images_seen < rung:
        is_asked = run.team.decided(advance)
        clock.tick()
        if run.device.type == "cpu" and int(run.segment.bad_step):
            break  # reading the loss costs nothing on CPU; elsewhere it would stall the device
        if is_asked:
            clock.stop()
            yield Pause(run.images_seen)
            clock = Stopwatch(run)
    clock.stop()


def _advance(run: Run, step: Step, source: Iterator[Batch], watch: NoWatch) -> None:
    run.begin_step()
    batch = next(source)
    watch.before(run, batch)
    loss = step(*batch)
    watch.after(run)
    run.end_step(loss)


def _stepper(run: Run) -> Step:
    recipe = run.config.recipe
    is_plain = recipe.accumulate == 1 and recipe.clip is None and not run.scaler.is_enabled()
    if not is_plain or run.team.size > 1:
        parts = min(recipe.accumulate, run.config.batch_size // run.team.size)
        return RecipeStep(run.loss, run.optimizer, run.scaler, parts, recipe.clip, run.team)
    plain = PlainStep(run.loss, run.optimizer)
    return GraphedStep(plain, CudaRecorder(run.device)) if run.execution.graphed else plain
