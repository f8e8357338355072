"""The article's claims on accuracy: published values, a limit, running statistics, dropout."""

from collections.abc import Sequence
from dataclasses import dataclass

from objectives.intervals import Interval
from study.claims import Evidence, Judgement, Status
from study.comparison import Cell, cells
from study.judging import all_of, budget_of, percent, placed, short_of_article, too_few
from study.results import StudyResult
from study.statistics import Comparison, compared, mean_interval, run_interval

ROUNDED = 0.0005  # as one decimal of a per cent is published
WIDEST = 0.005  # half of an interval of single runs, above which everything would lie in it
HARM = 0.002  # of an accuracy, below which it is called none


@dataclass(frozen=True)
class Seen:
    """A configuration of one model: its results, and its runs."""

    result: StudyResult
    cell: Cell

    @property
    def on_running_stats(self) -> dict[int, float]:
        """Test accuracy by seed as the article has it: on running statistics."""
        known = {run.seed: run.test.get("test_accuracy_running_stats") for run in self.cell.runs}
        guessed = self.cell.accuracies  # of runs that diverged that of guessing
        found = {seed: guessed.get(seed) if x is None else x for seed, x in known.items()}
        return {seed: value for seed, value in found.items() if value is not None}


def seen(results: Sequence[StudyResult], model: str, lr: float | None = None) -> Seen | None:
    """A model at a learning rate, or at its only one; None: it is not among the results."""
    for result in results:
        if result.identity.model == model:
            found = [cell for cell in cells([result]) if lr is None or cell.lr == lr]
            return Seen(result, found[0]) if found else None
    return None


def accuracy_judged(
    evidence: Evidence, model: str, published: float, lr: float | None = None
) -> Judgement:
    """A published accuracy, of one run: could it be one of ours? `lr` None: the tuned one."""
    six = seen(evidence.fits if lr is None else evidence.sweeps, model, lr)
    if six is None:
        return absent(model)
    values = list(six.on_running_stats.values())
    one = None if lr is None else seen(evidence.one_block, f"{model}_oneblock", lr)
    with_one = "" if one is None else f"; 1 block {_spread(list(one.on_running_stats.values()))}"
    ours = f"{_spread(values)}{with_one}"
    status, reason = _compatible(values, published, [six.result])
    if one is not None and status == "refuted":
        reason += _by_one_block(one, published)
    return Judgement(status, ours, reason, budget_of([six.result]))


def above_judged(evidence: Evidence, model: str, lr: float, least: float) -> Judgement:
    """Is a model's mean test accuracy at this learning rate above the limit?"""
    found = seen(evidence.sweeps, model, lr)
    if found is None:
        return absent(model)
    values = list(found.on_running_stats.values())
    budget, ours = budget_of([found.result]), _spread(values)
    if why := too_few(len(values)) or short_of_article([found.result]):
        return Judgement("undecided", ours, why, budget)
    mean = mean_interval([value - least for value in values])
    status = placed(mean, 0.0, 1.0)
    lost = f"; {found.cell.diverged} of {len(values)} runs diverged" * bool(found.cell.diverged)
    reason = f"the mean is {_points(mean)} points from {least:.0%}{lost}"
    return Judgement(status, ours, reason, budget)


def running_stats_judged(evidence: Evidence, models: Sequence[str]) -> Judgement:
    """Are models on their running statistics as accurate as on recalibrated ones?"""
    results = [r for r in evidence.sweeps if r.identity.model in models]
    all_cells = cells(results)
    compared = [(cell, _statistics_compared(cell, len(all_cells))) for cell in all_cells]
    named = {f"{c.model} at lr {c.lr:g}": pair for c, pair in compared if pair is not None}
    found = list(named.values())
    if not found:
        return Judgement("undecided", "", too_few(1), budget_of(results))
    ours = "; ".join(f"{name} {_points(pair.difference)} points" for name, pair in named.items())
    why = too_few(min(pair.pairs for pair in found)) or short_of_article(results)
    if why:
        return Judgement("undecided", ours, why, budget_of(results))
    status = all_of(placed(pair.difference, -HARM, 1.0) for pair in found)
    reason = (
        "running minus recalibrated statistics, the same runs, one difference for each model and "
        f"learning rate; harm is a loss of more than {100 * HARM:g} points"
    )
    return Judgement(status, ours, reason, budget_of(results))


def dropout_judged(evidence: Evidence, lr: float) -> Judgement:
    """Does ViT gain by dropout, and its BatchNorm twin not?"""
    if any(seen(evidence.sweeps, name, lr) is None for name in ("vit", "vitbn")):
        why = f"what it is compared with is not there: experiment 1 at lr {lr:g}"
        return Judgement("not run", "", why)
    gains = {name: _gain_by_dropout(evidence, name, lr) for name in ("vit", "vitbn")}
    ours = "; ".join(f"{n} {_points(g.difference)} points" for n, g in gains.items() if g)
    budget = budget_of(evidence.dropout)
    least = min((0 if gain is None else gain.pairs) for gain in gains.values())
    if why := too_few(least) or short_of_article(evidence.dropout, besides="dropout"):
        return Judgement("undecided", ours, why, budget)
    vit, vitbn = (gain.difference for gain in gains.values() if gain is not None)
    if vitbn.low > 0.0:
        return Judgement("refuted", ours, "with BatchNorm, too, dropout makes it better", budget)
    if vit.low > 0.0 and vitbn.high < HARM:
        return Judgement("confirmed", ours, "ViT gains by dropout, ViTBN does not", budget)
    return Judgement("undecided", ours, "no gain by dropout was shown that could go", budget)


def absent(model: str) -> Judgement:
    """What is said where the evidence has not these models with these values."""
    more = "bnvit-study reproduce article --only experiment1 --study NAME, which trains all"
    return Judgement("not run", "", f"no runs of {model} with these values; {more}")


def _compatible(
    values: Sequence[float], published: float, results: Sequence[StudyResult]
) -> tuple[Status, str]:
    if why := too_few(len(values)) or short_of_article(results):
        return "undecided", why
    run = run_interval(values)
    shown = f"single runs lie within {100 * run.low:.2f}–{100 * run.high:.2f} % (95 %)"
    if not run.low - ROUNDED <= published <= run.high + ROUNDED:
        return "refuted", f"{shown}; {published:.1%} does not"
    if run.half_width > WIDEST:
        return "undecided", f"{shown}, which is too wide to say anything of {published:.1%}"
    return "confirmed", f"{shown}, and so does {published:.1%}"


def _by_one_block(one: Seen, published: float) -> str:
    status, reason = _compatible(list(one.on_running_stats.values()), published, [one.result])
    if status == "confirmed":
        return f"; with one block {reason}: that is what the article ran"
    return f"; with one block: {reason}"


def _statistics_compared(cell: Cell, family: int) -> Comparison | None:
    told = [run.test for run in cell.runs if "test_accuracy_running_stats" in run.test]
    if len(told) < 2:
        return None
    running, judged = (
        [test[key] for test in told] for key in ("test_accuracy_running_stats", "test_accuracy")
    )
    return compared(running, judged, family)


def _gain_by_dropout(evidence: Evidence, model: str, lr: float) -> Comparison | None:
    found = [seen(results, model, lr) for results in (evidence.dropout, evidence.sweeps)]
    if any(each is None for each in found):
        return None
    with_it, without = (each.cell.accuracies for each in found if each is not None)
    seeds = sorted(with_it.keys() & without.keys())
    if len(seeds) < 2:
        return None
    return compared([with_it[s] for s in seeds], [without[s] for s in seeds], family=2)


def _spread(values: Sequence[float]) -> str:
    """The mean and its interval, or what there is."""
    if len(values) < 2:
        return "".join(f"{100 * value:.2f} %" for value in values)
    return percent(mean_interval(values))


def _points(difference: Interval) -> str:
    low, high = (f"{100 * each:+.2f}" for each in (difference.low, difference.high))
    return f"{100 * difference.estimate:+.2f} ({low} to {high})".replace("-", "−")
