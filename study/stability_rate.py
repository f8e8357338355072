"""One learning rate of a stability study: how many runs diverged, and what the others are worth."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from objectives.intervals import Interval
from objectives.outcome import Outcome
from study.results import RunResult
from study.statistics import share_interval


@dataclass(frozen=True)
class Rate:
    """One learning rate with one batch size, over its seeds; without runs that lacked memory."""

    lr: float
    runs: tuple[RunResult, ...]  # by seed; at least one

    @property
    def diverged(self) -> int:
        """Runs that stopped being finite."""
        return sum(run.outcome is Outcome.DIVERGED for run in self.runs)

    @property
    def collapsed(self) -> int:
        """Runs that stayed finite and ended no better than naming the commonest class."""
        return sum(map(is_collapsed, self.runs))

    @property
    def p_diverge(self) -> Interval:
        """Probability that a run diverges, with Jeffreys' interval."""
        return share_interval(self.diverged, len(self.runs))

    @property
    def accuracies(self) -> tuple[float, ...]:
        """On the validation split at the end; of a run that diverged that of guessing."""
        return tuple(run.value or 0.0 for run in self.runs)

    @property
    def accuracy(self) -> float:
        """Mean of the accuracies."""
        return fmean(self.accuracies)

    @property
    def accuracy_at_least(self) -> float:
        """Mean of the accuracies; none counts for less than guessing."""
        return fmean(
            max(accuracy, 1 / run.computed["classes"])
            for accuracy, run in zip(self.accuracies, self.runs, strict=True)
        )

    @property
    def loss(self) -> float:
        """Mean validation loss at the end, in nats; no run's counts for more than guessing's."""
        return fmean(map(_loss, self.runs))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "lr": self.lr,
            "runs": len(self.runs),
            "diverged": self.diverged,
            "collapsed": self.collapsed,
            "p_diverge": vars(self.p_diverge),
            "val_accuracy": self.accuracy,
            "val_loss": self.loss,
        }


def is_collapsed(run: RunResult) -> bool:
    """Whether a finite run ended at chance level: no better than naming the commonest class."""
    if run.outcome is not Outcome.COMPLETE or run.value is None:
        return False
    return bool(run.value <= run.computed["majority_accuracy"])


def _loss(run: RunResult) -> float:
    guessing = math.log(run.computed["classes"])
    if run.outcome is Outcome.DIVERGED or not run.curve:
        return guessing
    return min(run.curve[-1]["val_loss"], guessing)
