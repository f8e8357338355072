"""Published sizes, work and gains of the larger models against what is counted and timed."""

import math

from objectives.intervals import Interval
from objectives.speed import gain
from study.claims import Evidence, Judgement, Status
from study.claims_speed import race_budget
from study.counts import Counted
from study.judging import percent, placed, shown

NEAR = 0.01  # of work and memory, that counts as the same: counters differ in what they leave out
PUBLISHED_BATCH = 256  # of the blog's inference
_COUNTED = "counted on the model"


def parameters_judged(evidence: Evidence, model: str, published: str) -> Judgement:
    """Published parameters in millions: ours, rounded or cut off at the same digit?"""
    millions = evidence.counts[model].parameters / 1e6
    digits = len(published.partition(".")[2])
    scale = 10.0**digits
    nearby = {f"{millions:.{digits}f}", f"{math.floor(millions * scale) / scale:.{digits}f}"}
    is_same = published in nearby
    reason = f"{_COUNTED}; rounded {millions:.{digits}f} M"
    return Judgement(_mark(is_same), f"{millions:.3f} M", reason, "exact")


def shape_judged(evidence: Evidence, model: str, dim: int, heads: int, depth: int) -> Judgement:
    """Published width, heads and blocks."""
    found = evidence.counts[model]
    ours = (found.dim, found.heads, found.depth)
    return Judgement(
        _mark(ours == (dim, heads, depth)), ", ".join(map(str, ours)), _COUNTED, "exact"
    )


def work_judged(evidence: Evidence, model: str, published_g: float) -> Judgement:
    """Published "FLOPs" in thousand millions: are they our multiply-adds?"""
    giga = evidence.counts[model].macs / 1e9
    is_same = abs(giga / published_g - 1) <= NEAR
    reason = (
        f"as multiply-adds, within {NEAR:.0%}; floating-point operations are twice as many, "
        f"{2 * giga:.1f} G"
        if is_same
        else f"neither multiply-adds nor operations ({2 * giga:.1f} G) within {NEAR:.0%}"
    )
    return Judgement(_mark(is_same), f"{giga:.1f} G multiply-adds", reason, "exact")


def memory_judged(evidence: Evidence, model: str, published_mib: float) -> Judgement:
    """Published memory: is it that of the weights, in float32?"""
    mib = evidence.counts[model].weights_bytes / 2**20
    is_same = abs(mib / published_mib - 1) <= NEAR
    reason = (
        f"the weights as a file holds them, within {NEAR:.0%}, in units of 2^20 bytes"
        if is_same
        else f"{published_mib / mib:.2f} times what the weights take: of what else it is the "
        "memory is not said"
    )
    return Judgement(_mark(is_same), f"{mib:,.0f} MiB", reason, "exact")


def inference_judged(
    evidence: Evidence, backbone: str, folded: bool, published_gain: float
) -> Judgement:
    """Does the BatchNorm model evaluate faster by at least what is published?"""
    speeds = next(s for s in evidence.inference if s.models[0] == backbone)
    (task,) = speeds.tasks
    name = f"{speeds.models[1]}{', folded' * folded}"
    ratio = speeds.ratio(task, name)
    more = Interval(*(each - 1 for each in (ratio.estimate, ratio.low, ratio.high)))
    status: Status = placed(more, published_gain, math.inf)
    reason = f"{shown(ratio)} times as fast; time saved {percent(gain(ratio), 1)}"
    if task.race.trouble:
        status = "undecided"
        reason = f"UNRELIABLE, {task.race.trouble}; run again when nothing else runs: {reason}"
    if task.batch_size != PUBLISHED_BATCH:
        status = "undecided"
        reason += f"; at batch size {task.batch_size}, where {PUBLISHED_BATCH} was published"
    return Judgement(status, f"{percent(more, 1)} faster", reason, race_budget(speeds, task))


def seen_of(counts: Counted) -> tuple[str, ...]:
    """A row of what was counted."""
    return (
        f"{counts.parameters:,}",
        f"{counts.dim}, {counts.heads}, {counts.depth}",
        f"{counts.macs / 1e9:.2f}",
        f"{counts.weights_bytes / 2**20:,.1f}",
    )


def _mark(is_same: bool) -> Status:
    return "confirmed" if is_same else "refuted"
