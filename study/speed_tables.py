"""Measured speeds for people: a table per task, and what they show in words."""

from collections.abc import Iterator
from statistics import median

from objectives.data_options import short_name
from objectives.intervals import Interval
from objectives.speed import Timing, gain
from study.charts import Bars, Chart, Panel, Reference
from study.report import Block
from study.speeds import Speeds, TaskSpeeds, verdict
from study.tabular import Tabular
from study.words import counted, ranges

_WORK = {"train": "training step", "eval": "evaluation"}


def headline(speeds: Speeds) -> list[str]:
    """On what and how it was measured."""
    cores = f" on cores {ranges(speeds.cores)}" if speeds.cores else ""
    lines = [
        f"device:  {speeds.device}, {counted(speeds.threads, 'thread')}{cores}",
        f"images:  {short_name(speeds.dataset)}",
        f"method:  turns in changing order, median and 95 % interval; ratios round by round, "
        f"{speeds.precision}, {speeds.execution}",
    ]
    if speeds.family > 1:
        lines.append(f"         the intervals of {speeds.family} ratios hold together (Bonferroni)")
    if speeds.unequal:
        lines.append(f"UNEQUAL: {speeds.unequal}; what follows compares different amounts of work")
    return lines


def task_lines(speeds: Speeds, task: TaskSpeeds) -> Iterator[str]:
    """What is said above the table of a task."""
    rounds = len(task.race.timings[0].samples_s)
    yield (
        f"{_WORK[task.work]}, batch size {task.batch_size}: {rounds} rounds"
        f"{_attempts(task)}; {_loading(task)}{_unequal(speeds)}"
    )
    if task.race.trouble:
        yield f"UNRELIABLE: {task.race.trouble}; measure again when nothing else runs here"
    elif not task.race.is_narrow:
        yield f"the intervals did not come within ±{speeds.half_width:.1%}; allow more --minutes"


def task_table(speeds: Speeds, task: TaskSpeeds) -> Tabular:
    """The timings of a task."""
    first = task.race.timings[0]
    headings = ["model", "blocks", "GMACs", "ms (95 %)", "images/s"]
    headings += [f"times as fast as {first.name} (95 %)", "gain", "verdict"]
    if first.peak_bytes is not None:
        headings.append("peak MiB")
    title, *notes = task_lines(speeds, task)
    return Tabular(
        name=f"speed-{task.work}-{task.batch_size}",
        title=title,
        headings=tuple(headings),
        rows=tuple(tuple(_cells(speeds, task, timing)) for timing in task.race.timings),
        notes=tuple(notes),
    )


def speed_blocks(speeds: Speeds) -> Iterator[Block]:
    """How it was measured, the tables, and the ratios as a figure."""
    how = "; ".join(" ".join(line.split()) for line in headline(speeds))
    yield how[0].upper() + how[1:]
    for task in speeds.tasks:
        yield task_table(speeds, task)
    if speeds.tasks and len(speeds.tasks[0].race.timings) > 1:
        yield speed_chart(speeds)


def speed_verdicts(speeds: Speeds) -> Iterator[str]:
    """A sentence for each model and task."""
    for task in speeds.tasks:
        first, *others = task.race.timings
        for timing in others:
            ratio = speeds.ratio(task, timing.name)
            shown = f"UNRELIABLE, {task.race.trouble}" if task.race.trouble else verdict(ratio)
            yield (
                f"speed: {timing.name} against {first.name}, {_WORK[task.work]}, batch size "
                f"{task.batch_size}: {shown}; {_interval(ratio)} times as fast (95 %)"
                f"{_unequal(speeds)}"
            )


def speed_chart(speeds: Speeds) -> Chart:
    """How many times as fast as the first each model is, with intervals."""
    return Chart(
        name="speed",
        title=f"Times as fast as {speeds.models[0]}",
        panels=tuple(_speed_panel(speeds, task) for task in speeds.tasks),
        caption="Medians of ratios round by round, with their intervals; measured in turns."
        f"{_unequal(speeds)}",
    )


def _speed_panel(speeds: Speeds, task: TaskSpeeds) -> Panel:
    others = task.race.timings[1:]
    ratios = [speeds.ratio(task, timing.name) for timing in others]
    bars = Bars(
        "times as fast",
        tuple(timing.name for timing in others),
        tuple(ratio.estimate for ratio in ratios),
        tuple(ratio.low for ratio in ratios),
        tuple(ratio.high for ratio in ratios),
    )
    title = f"{_WORK[task.work].capitalize()}, batch size {task.batch_size}"
    title += " – UNRELIABLE" * bool(task.race.trouble)
    return Panel(title, "", "times as fast", (bars,), lines=(Reference(1.0),))


def _cells(speeds: Speeds, task: TaskSpeeds, timing: Timing) -> Iterator[str]:
    yield timing.name
    yield f"{timing.blocks_executed:g} of {timing.blocks}"
    yield f"{timing.macs / 1e9:.4g}"
    yield _interval(timing.seconds, 1e3)
    yield f"{timing.images / median(timing.samples_s):,.0f}"
    if timing is task.race.timings[0]:
        yield from ("1", "", "")
    else:
        ratio = speeds.ratio(task, timing.name)
        saved = gain(ratio)
        yield _interval(ratio)
        yield f"{saved.estimate:.1%} ({saved.low:.1%} to {saved.high:.1%})"
        yield "unreliable" if task.race.trouble else verdict(ratio)
    if timing.peak_bytes is not None:
        yield f"{timing.peak_bytes / 2**20:,.0f}"


def _interval(value: Interval, scale: float = 1.0) -> str:
    return f"{value.estimate * scale:.3f} ({value.low * scale:.3f}–{value.high * scale:.3f})"


def _loading(task: TaskSpeeds) -> str:
    if task.loading_s is None:
        return "gathering the batches is part of the times"
    return f"gathering a batch takes {task.loading_s * 1e3:.2f} ms beside that"


def _attempts(task: TaskSpeeds) -> str:
    attempts = task.race.attempts
    return f", attempt {attempts}" if attempts > 1 else ""


def _unequal(speeds: Speeds) -> str:
    return " – UNEQUAL WORK" if speeds.unequal else ""
