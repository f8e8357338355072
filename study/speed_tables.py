"""Measured speeds for people: a table per task, and what they show in words."""

from collections.abc import Iterator
from statistics import median

from rich.table import Table

from objectives.intervals import Interval
from objectives.speed import Timing, gain
from study.speeds import Speeds, TaskSpeeds, verdict
from study.tables import plain_table
from study.words import counted

_WORK = {"train": "training step", "eval": "evaluation"}


def headline(speeds: Speeds) -> list[str]:
    """On what and how it was measured."""
    cores = f" on cores {_cores(speeds)}" if speeds.cores else ""
    lines = [
        f"device:  {speeds.device}, {counted(speeds.threads, 'thread')}{cores}",
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
        f"{_attempts(task)}; gathering a batch takes {task.loading_s * 1e3:.2f} ms beside that"
        f"{_unequal(speeds)}"
    )
    if task.race.trouble:
        yield f"UNRELIABLE: {task.race.trouble}; measure again when nothing else runs here"
    elif not task.race.is_narrow:
        yield f"the intervals did not come within ±{speeds.half_width:.1%}; allow more --minutes"


def task_table(speeds: Speeds, task: TaskSpeeds) -> Table:
    """The timings of a task."""
    first = task.race.timings[0].name
    table = plain_table("model")
    for heading in ("blocks", "GMACs", "ms", "images/s", f"times as fast as {first}", "gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    if task.race.timings[0].peak_bytes is not None:
        table.add_column("peak MiB", justify="right")
    for timing in task.race.timings:
        table.add_row(*_cells(speeds, task, timing))
    return table


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


def _attempts(task: TaskSpeeds) -> str:
    attempts = task.race.attempts
    return f", attempt {attempts}" if attempts > 1 else ""


def _unequal(speeds: Speeds) -> str:
    return " – UNEQUAL WORK" if speeds.unequal else ""


def _cores(speeds: Speeds) -> str:
    return ", ".join(map(str, speeds.cores))
