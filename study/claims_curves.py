"""The article's claims on how training went: convergence, loss, stability."""

from collections.abc import Sequence
from itertools import chain
from statistics import fmean, median
from typing import Literal

from objectives.intervals import Interval
from objectives.outcome import Outcome
from study.claims import Evidence, Judgement, Status
from study.claims_accuracy import absent
from study.comparison import TARGET, Cell, Pair, cells, pairs
from study.judging import all_of, budget_of, placed, short_of_article, too_few
from study.results import RunResult
from study.statistics import compared, share_interval

LEARNT = 0.9  # validation accuracy that a run must have been above …
DROP = 0.1  # … and how much it must lose of what it had, to be called unstable
AN_EPOCH = 1.0  # a difference below it is none: accuracy is looked at once an epoch

Expected = Literal["fewer", "alike"]
Found = Literal["fewer", "alike", "more", "unknown"]  # epochs that ViT takes

DEFINITION = (
    f"A run is called unstable if its validation accuracy falls by more than {100 * DROP:g} points "
    f"below what it had reached, after having been above {LEARNT:.0%}, or if it diverges; one that "
    "was never above it may be either."
)


def convergence_judged(evidence: Evidence, lr: float | None, expected: Expected) -> Judgement:
    """Does ViT take fewer epochs to the target than both BatchNorm models, or as many?"""
    results = evidence.fits if lr is None else evidence.sweeps
    chosen = [cell for cell in cells(results) if lr is None or cell.lr == lr]
    matched = pairs(_vit_first(chosen))
    if not matched:
        return absent("ViT and a BatchNorm model")
    ours = "; ".join(_arrival(cell) for cell in (matched[0].reference, *(p.cell for p in matched)))
    budget, least = budget_of(results), min(len(cell.runs) for cell in chosen)
    if why := too_few(least) or short_of_article(results):
        return Judgement("undecided", ours, why, budget)
    status = all_of(_as_expected(_epochs_found(pair), expected) for pair in matched)
    return Judgement(status, ours, _differences(matched), budget)


def loss_judged(evidence: Evidence, lr: float) -> Judgement:
    """Does ViT end with a lower training loss than both BatchNorm models?"""
    chosen = _vit_first([cell for cell in cells(evidence.sweeps) if cell.lr == lr])
    if len(chosen) < 2 or chosen[0].model != "vit":
        return absent("ViT and a BatchNorm model")
    vit, *others = (_last_losses(cell) for cell in chosen)
    ours = "; ".join(
        f"{cell.model} {fmean(losses.values()):.4f}"
        for cell, losses in zip(chosen, (vit, *others), strict=True)
        if losses
    )
    common = [sorted(vit.keys() & other.keys()) for other in others]
    budget, least = budget_of(evidence.sweeps), min(map(len, common))
    if why := too_few(least) or short_of_article(evidence.sweeps):
        return Judgement("undecided", ours, why, budget)
    found = [
        compared([other[s] for s in seeds], [vit[s] for s in seeds], len(others)).difference
        for other, seeds in zip(others, common, strict=True)
    ]
    status = all_of(placed(each, 0.0, float("inf")) for each in found)
    reason = ", ".join(f"{d.estimate:+.4f} ({d.low:+.4f} to {d.high:+.4f})" for d in found)
    return Judgement(status, ours, f"differences to ViT, paired by seed: {reason}", budget)


def stability_judged(
    evidence: Evidence,
    lr: float,
    stable: Sequence[str],
    unstable: Sequence[str] = (),
    onset: tuple[float, float] | None = None,
) -> Judgement:
    """Are most runs of these models stable, and most of those unstable, at a learning rate?

    `onset`: the epochs between which the median of the unstable ones is to begin.
    """
    names = (*unstable, *stable)
    found = {c.model: c for c in cells(evidence.sweeps) if c.lr == lr and c.model in names}
    if missing := [name for name in names if name not in found]:
        return absent(", ".join(missing))
    results = [result for result in evidence.sweeps if result.identity.model in names]
    ours = "; ".join(_stability(cell) for cell in found.values())
    why = too_few(min(len(cell.runs) for cell in found.values()))
    if why or (why := short_of_article(results)):
        return Judgement("undecided", ours, why, budget_of(results))
    marks = chain(
        (_mostly(found[name], 0.5, 1.0) for name in unstable),
        (_mostly(found[name], 0.0, 0.5) for name in stable),
        (_begins(found[name], *onset) for name in unstable if onset is not None),
    )
    return Judgement(all_of(marks), ours, f"{ours}. {DEFINITION}", budget_of(results))


def is_unstable(run: RunResult) -> bool:
    """Whether a run lost what it had learnt, or diverged; see `DEFINITION`."""
    return run.outcome is Outcome.DIVERGED or unstable_from(run) is not None


def unstable_from(run: RunResult) -> float | None:
    """The epoch at which a run was first seen to have lost what it had learnt; None: at none."""
    best = 0.0
    for rung in run.curve:
        accuracy = rung.get("val_accuracy", 0.0)
        if best > LEARNT and accuracy < best - DROP:
            return rung["epoch"]
        best = max(best, accuracy)
    return None


def _onset(run: RunResult) -> float | None:
    """The epoch from which a run was unstable, or the last before it diverged; None: stable."""
    if (lost := unstable_from(run)) is not None or run.outcome is not Outcome.DIVERGED:
        return lost
    return run.curve[-1]["epoch"] if run.curve else 0.0


def _never_learnt(run: RunResult) -> bool:
    """Whether it stayed so low that nothing could be lost; what diverged is unstable anyway."""
    is_low = all(rung.get("val_accuracy", 0.0) <= LEARNT for rung in run.curve)
    return is_low and run.outcome is not Outcome.DIVERGED


def _vit_first(found: Sequence[Cell]) -> list[Cell]:
    return sorted(found, key=lambda cell: cell.model != "vit")


def _epochs_found(pair: Pair) -> Found:
    """How many epochs ViT, the reference, takes against the other model."""
    arrived, of_vit = (len(cell.reached(TARGET)) for cell in (pair.cell, pair.reference))
    if arrived == 0 and of_vit == len(pair.reference.runs):
        return "fewer"
    if of_vit == 0 and arrived == len(pair.cell.runs):
        return "more"
    if pair.epochs_to_target is None:
        return "unknown"
    difference = pair.epochs_to_target.difference  # the other's minus ViT's
    if difference.low > -AN_EPOCH and difference.high < AN_EPOCH:
        return "alike"
    if difference.contains(0.0):
        return "unknown"
    return "fewer" if difference.estimate > 0 else "more"


def _as_expected(found: Found, expected: Expected) -> Status:
    if found == "unknown":
        return "undecided"
    if expected == "fewer":
        return "confirmed" if found == "fewer" else "refuted"
    return "refuted" if found == "fewer" else "confirmed"  # no advantage is what is claimed


def _differences(matched: Sequence[Pair]) -> str:
    said = []
    for pair in matched:
        if pair.epochs_to_target is None:
            said.append(f"not all runs of {pair.cell.model} and {pair.reference.model} came to it")
            continue
        d = pair.epochs_to_target.difference
        said.append(f"{pair.cell.model} takes {d.estimate:+.1f} ({d.low:+.1f} to {d.high:+.1f})")
    return f"epochs to {TARGET:.0%} against ViT's: {', '.join(said)}".replace("-", "−")


def _arrival(cell: Cell) -> str:
    arrived = cell.reached(TARGET).values()
    if not arrived:
        return f"{cell.model} not in {len(cell.runs)} runs"
    epochs, seconds = fmean(x.epochs for x in arrived), median(x.seconds for x in arrived)
    some = "" if len(arrived) == len(cell.runs) else f" ({len(arrived)} of {len(cell.runs)})"
    return f"{cell.model} {epochs:.1f} epochs, {seconds:.0f} s{some}"


def _last_losses(cell: Cell) -> dict[int, float]:
    return {run.seed: run.curve[-1]["train_loss"] for run in cell.runs if run.curve}


def _stability(cell: Cell) -> str:
    hits = [run for run in cell.runs if is_unstable(run)]
    began = [epoch for run in hits if (epoch := _onset(run)) is not None]
    never = sum(map(_never_learnt, cell.runs))
    said = f"{cell.model} {len(hits)} of {len(cell.runs)} unstable"
    if began:
        said += f", from epoch {min(began):.0f} on, median {median(began):.0f}"
    return said + (f", {never} never above {LEARNT:.0%}" if never else "")


def _mostly(cell: Cell, low: float, high: float) -> Status:
    """Whether the share of unstable runs, among all that could be made, lies between these.

    It does only if it does wherever those that never learnt are counted.
    """
    hits, count = sum(map(is_unstable, cell.runs)), len(cell.runs)
    never = sum(map(_never_learnt, cell.runs))
    least, most = (share_interval(number, count) for number in (hits, hits + never))
    return placed(Interval(least.estimate, least.low, most.high), low, high)


def _begins(cell: Cell, first: float, last: float) -> Status:
    """Whether the median run that is unstable begins to be so between these epochs."""
    began = [epoch for run in cell.runs if (epoch := _onset(run)) is not None]
    if not began:
        return "undecided"
    return "confirmed" if first <= median(began) <= last else "refuted"
