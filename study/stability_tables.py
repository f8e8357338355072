"""What stability studies show, as tables: limits, learning rates, runs that diverged."""

from collections.abc import Iterator, Sequence

from objectives.intervals import Interval
from study.stability import Episode, Limit
from study.stability_rate import Rate
from study.tabular import Tabular


def stability_tables(found: Sequence[Limit]) -> tuple[Tabular, ...]:
    """All tables; that of runs that diverged only where there are any."""
    tables = [limits_table(found), rates_table(found)]
    if any(limit.episodes for limit in found):
        tables.append(episodes_table(found))
    return tuple(tables)


def limits_table(found: Sequence[Limit]) -> Tabular:
    """For each model and batch size the largest stable learning rate, and what it costs to miss."""
    headings = ("model", "batch size", "stable up to lr", "not at lr", "runs", "diverged")
    worth = ("best val. accuracy", "at lr", "excess loss", "accuracy lost")
    return Tabular(
        name="limits",
        title="Largest stable learning rate",
        headings=(*headings, "collapsed", *worth),
        rows=tuple(_limit_cells(limit) for limit in found),
        notes=tuple(_limit_notes(found)),
    )


def rates_table(found: Sequence[Limit]) -> Tabular:
    """How often each learning rate diverged, and how accurate it was."""
    headings = ("model", "batch size", "lr", "runs", "diverged", "P(diverge)", "95 % interval")
    return Tabular(
        name="rates",
        title="Learning rates",
        headings=(*headings, "collapsed", "val. accuracy", "val. loss"),
        rows=tuple(
            (limit.model, str(limit.batch_size), *_rate_cells(rate))
            for limit in found
            for rate in limit.rates
        ),
        notes=(
            "P(diverge): share of the seeds, with Jeffreys' interval. Accuracy and loss: means "
            "over seeds at the end; a run that diverged has those of guessing.",
        ),
    )


def episodes_table(found: Sequence[Limit]) -> Tabular:
    """Each run that stopped being finite: where, when, and what it was worth before."""
    headings = ("model", "first not finite", "of it", "batch size", "lr", "seed", "step")
    return Tabular(
        name="diverged",
        title="Runs that diverged",
        headings=(*headings, "gradient norm before", "as the blog tells it"),
        rows=tuple(_episode_cells(limit, episode) for limit in found for episode in limit.episodes),
        left=3,
        notes=(
            "First not finite: the first module, in order of execution, whose output was not; "
            "else, from the loss backwards, whose gradient; else the optimizer. Step: the first "
            "whose loss was not finite; it may have begun in the one before. Blog: best accuracy "
            "in per cent @ epoch before NaN, or the epoch in which it came.",
        ),
    )


def _limit_cells(limit: Limit) -> tuple[str, ...]:
    ends, best = limit.ends, limit.best
    return (
        limit.model,
        str(limit.batch_size),
        "none" if ends.low is None else _lr(ends.low),
        "" if ends.high is None else _lr(ends.high),
        str(sum(len(rate.runs) for rate in limit.rates)),
        str(sum(rate.diverged for rate in limit.rates)),
        str(sum(rate.collapsed for rate in limit.rates)),
        "" if best is None else f"{best.accuracy:.2%}",
        "" if best is None else _lr(best.lr),
        f"{limit.sensitivity:.3f}",
        f"{limit.accuracy_lost:.1%}",
    )


def _limit_notes(found: Sequence[Limit]) -> Iterator[str]:
    yield (
        "Stable: every seed stayed finite. Collapsed: finite, and in the end no better than naming "
        "the commonest class. Excess loss: lr sensitivity, the expected excess of the validation "
        "loss in nats over that of the best learning rate, over the range on the logarithmic "
        "scale, no loss above that of guessing (Wortsman et al. 2023); accuracy lost: the same of "
        "the accuracy."
    )
    for limit in found:
        where = f"{limit.model}, batch size {limit.batch_size}"
        if limit.ends.low is not None and limit.ends.high is None:
            yield f"{where}: no learning rate was seen to diverge above the largest stable one."
        if limit.unstable_below:
            below = ", ".join(map(_lr, limit.unstable_below))
            yield f"{where}: lower learning rates diverged all the same: {below}."


def _rate_cells(rate: Rate) -> tuple[str, ...]:
    return (
        _lr(rate.lr),
        str(len(rate.runs)),
        str(rate.diverged),
        f"{rate.p_diverge.estimate:.0%}",
        _shares(rate.p_diverge),
        str(rate.collapsed),
        f"{rate.accuracy:.2%}",
        f"{rate.loss:.3f}",
    )


def _episode_cells(limit: Limit, episode: Episode) -> tuple[str, ...]:
    told = episode.told
    return (
        limit.model,
        told.layer or "not known",
        told.stage or "",
        str(limit.batch_size),
        _lr(episode.run.lr),
        str(episode.run.seed),
        f"{told.step:,}",
        "" if told.grad_norm_before is None else f"{told.grad_norm_before:.3g}",
        episode.notation,
    )


def _lr(lr: float) -> str:
    return f"{lr:.3g}"


def _shares(interval: Interval) -> str:
    return f"{interval.low:.0%}–{interval.high:.0%}"
