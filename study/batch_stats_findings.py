"""What runs say of the findings of Wu & Johnson 2021 (arXiv 2105.07576), seed by seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from objectives.evaluation import Evaluation
from objectives.nbs import Judged
from study.batch_stats_runs import BatchStats, Watched
from study.words import counted

WAYS: dict[str, Callable[[Judged], Evaluation | None]] = {
    "train, mini-batch": lambda one: one.three.train_batch,
    "validation, mini-batch": lambda one: one.three.val_batch,
    "validation, PreciseBN": lambda one: one.three.val_population,
    "validation, running averages": lambda one: one.running,
    "validation, frozen": lambda one: one.frozen,
}
"""How a run was judged; None where it was not."""

TRAIN, BATCH, POPULATION, RUNNING, FROZEN = WAYS


FEWEST_SEEDS = 5  # for a verdict, as in comparisons


@dataclass(frozen=True)
class Spread:
    """A number over seeds."""

    mean: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    """Mean, least and greatest of `values`; None of none."""
    return Spread(mean(values), min(values), max(values)) if values else None


def errors(found: BatchStats, nbs: int, way: str) -> list[float]:
    """Errors of one way, shares in [0, 1], over the seeds that did not diverge."""
    return [1.0 - one.accuracy for one in evaluations(found, nbs, way)]


def evaluations(found: BatchStats, nbs: int, way: str) -> list[Evaluation]:
    """The same with all that was measured."""
    judged = [one.judged for one in found.swept if one.nbs == nbs and one.judged is not None]
    return [each for one in judged if (each := WAYS[way](one)) is not None]


def jitter(curve: Sequence[float]) -> float:
    """How far a curve's values are from the mean of their neighbours, in its second half.

    What falls evenly does not jitter.
    """
    late = curve[len(curve) // 2 :]
    if len(late) < 3:
        return 0.0
    return mean(abs(b - (a + c) / 2) for a, b, c in zip(late, late[1:], late[2:], strict=False))


def findings(found: BatchStats) -> list[str]:
    """A sentence for each finding that the runs can speak to."""
    said = [_noise(found), _mini_batch(found), _frozen(found)] if found.request.nbs else []
    sizes = sorted({one.batch_size for one in found.watched})
    told = [one for one in (*said, *(_lag(found, size) for size in sizes)) if one is not None]
    if told and found.request.seeds < FEWEST_SEEDS:
        told.append(f"Fewer than {FEWEST_SEEDS} seeds: these are numbers, no verdicts.")
    return told


def _noise(found: BatchStats) -> str | None:
    least, most = min(found.request.nbs), max(found.request.nbs)
    return _sentence(
        "Training noise falls with NBS",
        [] if least == most else _pairs(found, (least, TRAIN), (most, TRAIN)),
        f"Train error by mini-batch statistics at NBS {least}",
        f"at NBS {most}",
    )


def _mini_batch(found: BatchStats) -> str | None:
    least = min(found.request.nbs)
    return _sentence(
        f"At a small NBS ({least}) mini-batch statistics at test time beat the population's",
        _pairs(found, (least, POPULATION), (least, BATCH)),
        "Validation error by population statistics",
        "by mini-batch statistics",
    )


def _frozen(found: BatchStats) -> str | None:
    least = min(found.request.nbs)
    return _sentence(
        f"Freezing BN for the last {found.request.frozen_epochs:g} of {found.request.epochs} "
        f"epochs helps at a small NBS ({least})",
        _pairs(found, (least, POPULATION), (least, FROZEN)),
        "Validation error by population statistics without freezing",
        "with it",
    )


def _lag(found: BatchStats, batch_size: int) -> str | None:
    runs = [one for one in found.watched if one.batch_size == batch_size and one.curve]
    if not runs:
        return None
    first = _sentence(
        f"Batch {batch_size}: running averages lag after the first epoch",
        [(one.running_errors[0], one.precise_errors[0]) for one in runs],
        "Validation error by them",
        "by PreciseBN on the same weights",
    )
    later = _sentence(
        "running averages jitter more in the second half of training",
        [(jitter(one.running_errors), jitter(one.precise_errors)) for one in runs],
        "The error of an epoch is from the mean of its neighbours by",
        "PreciseBN's by",
    )
    return f"{first} Batch {batch_size}: {later}"


def _sentence(
    claim: str, pairs: Sequence[tuple[float, float]], left: str, right: str
) -> str | None:
    """In how many pairs the first number is the greater, and by how much.

    None where there are no pairs.
    """
    if not pairs:
        return None
    holding = sum(first > second for first, second in pairs)
    by = [100 * (first - second) for first, second in pairs]
    far = f"{by[0]:+.2f}" if len(by) == 1 else f"{min(by):+.2f} to {max(by):+.2f}"
    first, second = (mean(values) for values in zip(*pairs, strict=True))
    return (
        f"{claim}: in {holding} of {counted(len(pairs), 'seed')}, by {far} points. {left} "
        f"{first:.2%}, {right} {second:.2%}."
    )


def _pairs(
    found: BatchStats, left: tuple[int, str], right: tuple[int, str]
) -> list[tuple[float, float]]:
    """Both errors of each seed that has them."""
    judged = {(one.nbs, one.seed): one.judged for one in found.swept}
    pairs = []
    for seed in found.request.all_seeds:
        runs = [(judged.get((nbs, seed)), WAYS[way]) for nbs, way in (left, right)]
        ends = [None if run is None else way(run) for run, way in runs]
        if ends[0] is not None and ends[1] is not None:
            pairs.append((1.0 - ends[0].accuracy, 1.0 - ends[1].accuracy))
    return pairs


def watched_at(found: BatchStats, batch_size: int) -> list[Watched]:
    """The watched runs of one batch size that came to their end."""
    whole = [one for one in found.watched if len(one.curve) == found.request.epochs]
    return [one for one in whole if one.batch_size == batch_size]
