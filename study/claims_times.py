"""The article's claims on how the time of an epoch depends on the learning rate."""

from collections.abc import Mapping, Sequence

from study.claims import Evidence, Judgement, Status
from study.judging import ARTICLE_EPOCHS, ARTICLE_IMAGES, all_of, shown
from study.words import counted

GROWTH = 1.05  # of a step's time, from which it is said to grow
ARTICLE_BATCH = 100
ARTICLE_STEPS = ARTICLE_EPOCHS * ARTICLE_IMAGES // ARTICLE_BATCH

_WHY = "steps with denormals against the same steps with zeros instead, in one thread"


def growth_judged(
    evidence: Evidence, lr: float, grows: Sequence[str], stays: Sequence[str]
) -> Judgement:
    """Do the steps of some models take longer at a learning rate, and those of others not?

    That a time did not grow in fewer steps than the article's decides nothing.
    """
    found = {each.model: each for each in evidence.slowdowns if each.lr == lr}
    if missing := [name for name in (*grows, *stays) if name not in found]:
        return Judgement("not run", "", f"{', '.join(missing)} was not measured at lr {lr:g}")
    marks: list[Status] = [_growth(evidence, name, lr) for name in grows]
    marks += [_opposite(_growth(evidence, name, lr)) for name in stays]
    status: Status = "undecided" if _trouble(evidence) else all_of(marks)
    return Judgement(status, _ratios(evidence, lr), _reason(evidence, lr), _budget(evidence))


def order_judged(evidence: Evidence, lr: float, most: str, least: str) -> Judgement:
    """Does the time of one model depend most on the learning rate, and that of another least?"""
    family = len(evidence.slowdowns)
    found = {s.model: s.ratio(family) for s in evidence.slowdowns if s.lr == lr}
    if not {most, least} <= found.keys():
        return Judgement("not run", "", f"{most} and {least} were not both measured at lr {lr:g}")
    above = [found[most].low > other.high for name, other in found.items() if name != most]
    below = [found[least].high < other.low for name, other in found.items() if name != least]
    beaten = [found[most].high < other.low for name, other in found.items() if name != most]
    beaten += [found[least].low > other.high for name, other in found.items() if name != least]
    status: Status = "undecided"
    if not (_short(evidence) or _trouble(evidence) or _diverged(evidence, lr)):
        status = "confirmed" if all([*above, *below]) else "refuted" if any(beaten) else status
    return Judgement(status, _ratios(evidence, lr), _reason(evidence, lr), _budget(evidence))


def _growth(evidence: Evidence, model: str, lr: float) -> Status:
    """Whether a model's time grows at a learning rate by what denormals take."""
    each = next(s for s in evidence.slowdowns if (s.model, s.lr) == (model, lr))
    if each.has_diverged:
        return "undecided"
    ratio = each.ratio(len(evidence.slowdowns))
    if ratio.low > GROWTH:
        return "confirmed"
    return "refuted" if ratio.high < GROWTH and not _short(evidence) else "undecided"


def _opposite(mark: Status) -> Status:
    swapped: Mapping[Status, Status] = {"confirmed": "refuted", "refuted": "confirmed"}
    return swapped.get(mark, mark)


def _short(evidence: Evidence) -> bool:
    return min(each.steps for each in evidence.slowdowns) < ARTICLE_STEPS


def _trouble(evidence: Evidence) -> str:
    return next((s.race.trouble for s in evidence.slowdowns if s.race.trouble), "")


def _diverged(evidence: Evidence, lr: float) -> str:
    """Which models had diverged before they could be timed."""
    return ", ".join(s.model for s in evidence.slowdowns if s.lr == lr and s.has_diverged)


def _ratios(evidence: Evidence, lr: float) -> str:
    family = len(evidence.slowdowns)
    found = [each for each in evidence.slowdowns if each.lr == lr]
    return "; ".join(f"{each.model} {shown(each.ratio(family))}" for each in found)


def _reason(evidence: Evidence, lr: float) -> str:
    said = f"{_WHY}; growth is more than {GROWTH - 1:.0%}"
    if diverged := _diverged(evidence, lr):
        said = f"{diverged} had diverged, whose time says nothing; {said}"
    if trouble := _trouble(evidence):
        return f"UNRELIABLE, {trouble}; run again when nothing else runs: {said}"
    if _short(evidence):
        steps = min(each.steps for each in evidence.slowdowns)
        return (
            f"{said}. That a time has not grown after {counted(steps, 'step')} of the article's "
            f"{ARTICLE_STEPS:,} decides nothing; --denormal-epochs trains longer"
        )
    return said


def _budget(evidence: Evidence) -> str:
    steps = min(each.steps for each in evidence.slowdowns)
    return f"{counted(steps, 'step')} trained before, one thread, one run"
