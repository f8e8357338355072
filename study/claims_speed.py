"""The article's claims on speed: its own loop with all blocks, and with the one that ran."""

from statistics import median

from objectives.article_contenders import ONE_BLOCK
from objectives.article_loop import BLOCKS
from objectives.contenders import LR, Work
from objectives.intervals import Interval
from objectives.speed import gain
from study.claims import Evidence, Judgement, Status
from study.judging import all_of, percent, placed, shown
from study.speeds import Speeds, TaskSpeeds
from study.words import counted

BN_MODELS = ("vitbnffn", "vitbn")
TOLERANCE = 0.15  # of a ratio: as much as other hardware and loading may change it
LEAST_GAIN = 0.6  # that the article claims
_ELSEWHERE = f"raced at lr {LR:g}, from initial weights, not at this setting"
_ACTIVITY = {"train": "trains", "eval": "evaluates"}


def ratio_judged(
    evidence: Evidence, model: str, work: Work, published: float, is_raced: bool
) -> Judgement:
    """A published ratio: is it that of the model as it was described, with all its blocks?

    Races are of untrained weights at one setting. Of others, `is_raced` false, they decide
    nothing: there trained weights may make denormals, and batch sizes differ.
    """
    speeds = _speeds(evidence)
    task = task_of(speeds, work)
    six, one = (speeds.ratio(task, name) for name in (model, model + ONE_BLOCK))
    low, high = published * (1 - TOLERANCE), published * (1 + TOLERANCE)
    is_one = placed(one, low, high)
    explained = {
        "confirmed": f"with one block, as the article ran it, {one.estimate:.2f}: the published "
        f"ratio to within {TOLERANCE:.0%}",
        "refuted": f"with one block, as the article ran it, {one.estimate:.2f}: one block gives "
        f"{published:g} where {_beside_blocks(published):.0%} of ViT's time is not its blocks' but "
        f"loading and the like, which here is {_beside_blocks(one.estimate):.0%}",
    }.get(is_one, f"with one block {one.estimate:.2f}, which may be the published ratio")
    reason = f"with all {BLOCKS} blocks {model} {_ACTIVITY[work]} {six.estimate:.2f} times as fast"
    status = placed(six, low, high) if is_raced else "undecided"
    elsewhere = "" if is_raced else f"{_ELSEWHERE}: "
    return Judgement(
        _reliable(task, status),
        f"{BLOCKS} blocks {shown(six)}; 1 block {shown(one)}",
        f"{_trouble(task)}{elsewhere}{reason}; {explained}",
        race_budget(speeds, task),
    )


def _beside_blocks(ratio: float) -> float:
    """The share f of ViT's time outside of its blocks, by how much faster it is with one block.

    ratio = 1 / (f + (1 − f) / BLOCKS)
    """
    return max((BLOCKS / ratio - 1) / (BLOCKS - 1), 0.0)


def gain_judged(evidence: Evidence, work: Work) -> Judgement:
    """Do both BatchNorm models save as much time as claimed, with all their blocks?"""
    speeds = _speeds(evidence)
    task = task_of(speeds, work)
    six = {name: gain(speeds.ratio(task, name)) for name in BN_MODELS}
    one = {name: gain(speeds.ratio(task, name + ONE_BLOCK)) for name in BN_MODELS}
    status = all_of(placed(found, LEAST_GAIN, 1.0) for found in six.values())
    with_one = ", ".join(f"{found.estimate:.0%}" for found in one.values())
    with_six = ", ".join(f"{found.estimate:.0%}" for found in six.values())
    reason = (
        f"with all {BLOCKS} blocks the gain is {with_six} ({' and '.join(BN_MODELS)}); with one "
        f"block, as the article ran them, {with_one}{_alone(evidence, work)}"
    ).replace("-", "−")
    ours = "; ".join(f"{name} {percent(found, 1)}" for name, found in six.items())
    return Judgement(
        _reliable(task, status), ours, _trouble(task) + reason, race_budget(speeds, task)
    )


def task_of(speeds: Speeds, work: Work) -> TaskSpeeds:
    """The race of a work, of which there is one."""
    return next(task for task in speeds.tasks if task.work == work)


def race_budget(speeds: Speeds, task: TaskSpeeds) -> str:
    """What a race had."""
    first = task.race.timings[0]
    return (
        f"{counted(len(first.samples_s), 'round')}, {median(first.samples_s):.2g} s per step of "
        f"{first.name}, batch size {task.batch_size}, {speeds.device}, "
        f"{counted(speeds.threads, 'thread')}"
    )


def range_of(ratios: list[Interval]) -> str:
    """From the least estimate to the greatest."""
    found = sorted(ratio.estimate for ratio in ratios)
    low, high = f"{found[0]:.2f}", f"{found[-1]:.2f}"
    return low if low == high else f"{low}–{high}"


def _alone(evidence: Evidence, work: Work) -> str:
    """The same of steps without data loading, where they were measured."""
    own, other = evidence.own_speeds, evidence.own_one_block
    if own is None or other is None:
        return ""
    six = [own.ratio(task_of(own, work), name) for name in BN_MODELS]
    one = [other.ratio(task_of(other, work), name + ONE_BLOCK) for name in BN_MODELS]
    return (
        f". Without data loading, in this project's steps: {range_of(six)} times as fast with all "
        f"blocks, {range_of(one)} with one"
    )


def _speeds(evidence: Evidence) -> Speeds:
    assert evidence.article_speeds is not None  # else the part is missing
    return evidence.article_speeds


def _reliable(task: TaskSpeeds, status: Status) -> Status:
    return "undecided" if task.race.trouble else status


def _trouble(task: TaskSpeeds) -> str:
    """What is said before all else where the device was disturbed."""
    return f"UNRELIABLE, {task.race.trouble}; run again when nothing else runs: " * bool(
        task.race.trouble
    )
