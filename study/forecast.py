"""How much training the open trials of a study will still take, as far as it can be foreseen."""

from dataclasses import dataclass

from objectives.recipe import REDUCTION_FACTOR
from objectives.search_space import START_POINTS
from study.identity import PrunerName, StudyIdentity
from study.overview import Overview
from study.samplers import is_scout


def images_left(seen: Overview) -> float:
    """Images that the open trials are expected to train on, pruning included.

    Takes later trials to be as good as earlier ones; a search that keeps improving prunes less.
    """
    rungs = seen.identity.rungs
    reported = [float(sum(rung in row.rungs for row in seen.counted)) for rung in rungs]
    open_ones = [
        _Open(row.number, len(row.rungs), row.images_seen)
        for row in seen.counted
        if row.finished is None
    ]
    return _foreseen(seen.identity, len(seen.counted), open_ones, reported)


def images_of_new(identity: StudyIdentity, trials: int) -> float:
    """Images that a new study of so many trials is expected to train on."""
    open_ones = [_Open(number, 0, 0) for number in range(trials)]
    return _foreseen(identity, trials, open_ones, [0.0] * len(identity.rungs))


@dataclass(frozen=True)
class _Open:
    """A trial that has not ended."""

    number: int
    rungs: int  # that it has reached
    images_seen: int


def _foreseen(
    identity: StudyIdentity, total: int, open_ones: list[_Open], reported: list[float]
) -> float:
    """Images still to be trained on; `reported`: how many trials have reached each rung."""
    rungs = identity.rungs
    expected = 0.0
    for row in open_ones:
        is_best = 1.0 / (1.0 + reported[0])  # the best of those so far is never pruned
        reaches, done = 1.0, row.images_seen
        for index in range(row.rungs, len(rungs)):
            expected += reaches * max(rungs[index] - done, 0)
            done = max(rungs[index], done)
            if index == 0 and identity.pruner == "asha" and is_scout(row.number, total):
                reported[index] += 1.0
                break
            kept = _share_kept(identity.pruner, 1.0 + reported[index])
            reported[index] += reaches
            reaches = max(reaches * kept, is_best)
    return expected


def _share_kept(pruner: PrunerName, reported: float) -> float:
    """Probability that the last of `reported` trials goes on from a rung."""
    if pruner == "asha":
        return max(reported // REDUCTION_FACTOR, 1.0) / reported
    if pruner == "median" and reported > START_POINTS:
        return 0.5
    return 1.0
