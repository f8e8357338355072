"""Where training stops being stable: what the runs of stability studies show. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from objectives.metrics import Diverged
from objectives.notation import run_notation
from objectives.outcome import Outcome
from study.bracket import Bracket, Trained, bracket
from study.results import RunResult, StudyResult
from study.stability_rate import Rate


@dataclass(frozen=True)
class Episode:
    """A run that stopped being finite."""

    run: RunResult
    told: Diverged
    train_images: int  # of an epoch

    @property
    def notation(self) -> str:
        """As the blog's table tells it: the best before, or when it happened."""
        return run_notation(None, self.told, self.train_images)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"seed": self.run.seed, "notation": self.notation, **vars(self.told)}


@dataclass(frozen=True)
class Limit:
    """A model with one batch size, over all learning rates."""

    study: str
    model: str
    batch_size: int
    grid: tuple[float, ...]  # the learning rates that all batch sizes have in common
    train_images: int
    rates: tuple[Rate, ...]  # from the lowest

    @property
    def ends(self) -> Bracket:
        """The largest stable learning rate, and the smallest above it that is not."""
        return bracket(
            {
                rate.lr: Trained(tuple(run.outcome for run in rate.runs), rate.accuracy)
                for rate in self.rates
            }
        )

    @property
    def unstable_below(self) -> tuple[float, ...]:
        """Learning rates with a run that diverged, below the largest stable one."""
        low = self.ends.low
        return tuple(r.lr for r in self.rates if low is not None and r.lr < low and r.diverged)

    @property
    def best(self) -> Rate | None:
        """The most accurate learning rate at which no run diverged, of equals the lowest."""
        sound = (rate for rate in self.rates if not rate.diverged)
        return max(sound, key=lambda rate: (rate.accuracy, -rate.lr), default=None)

    @property
    def sensitivity(self) -> float:
        """LR sensitivity in nats: E[min(loss, loss of guessing) − the lowest such mean].

        The expectation is over learning rates, evenly on the logarithmic scale of the range that
        was trained, linear between them; the losses are means over seeds at the end, on the
        validation split. A run that diverged has the loss of guessing, ln(classes).

        Source: Wortsman et al. 2023, arXiv 2309.14322, who take the loss at initialisation.
        """
        losses = [rate.loss for rate in self.rates]
        return self._expected([loss - min(losses) for loss in losses])

    @property
    def accuracy_lost(self) -> float:
        """The same of accuracies, none of which counts for less than guessing: a share."""
        reached = [rate.accuracy_at_least for rate in self.rates]
        return self._expected([max(reached) - accuracy for accuracy in reached])

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The runs that diverged, by learning rate and seed."""
        return tuple(
            Episode(run, Diverged(**run.diverged), self.train_images)
            for rate in self.rates
            for run in rate.runs
            if run.diverged is not None
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "study": self.study,
            "model": self.model,
            "batch_size": self.batch_size,
            "largest_stable_lr": self.ends.low,
            "unstable_from_lr": self.ends.high,
            "unstable_below": list(self.unstable_below),
            "best": None if self.best is None else self.best.as_dict(),
            "lr_sensitivity": self.sensitivity,
            "accuracy_lost": self.accuracy_lost,
            "rates": [rate.as_dict() for rate in self.rates],
            "diverged": [episode.as_dict() for episode in self.episodes],
        }

    def _expected(self, values: Sequence[float]) -> float:
        """Mean of `values`, of the learning rates, by trapezoids over ln(lr)."""
        places = [math.log(rate.lr) for rate in self.rates]
        if len(places) == 1:
            return values[0]
        pieces = (
            (end - begin) * (before + after) / 2
            for (begin, end), (before, after) in zip(
                pairwise(places), pairwise(values), strict=True
            )
        )
        return math.fsum(pieces) / (places[-1] - places[0])


def limits(results: Sequence[StudyResult]) -> tuple[Limit, ...]:
    """Each batch size of each study; one of which no run fitted into memory is left out."""
    return tuple(
        Limit(
            result.name,
            result.model,
            batch_size,
            result.identity.bisection.rates,
            result.identity.train_images,
            rates,
        )
        for result in results
        for batch_size in sorted(result.identity.batch_sizes)
        if (rates := _rates(result, batch_size))
    )


def _rates(result: StudyResult, batch_size: int) -> tuple[Rate, ...]:
    runs = [run for run in result.runs if run.batch_size == batch_size]
    trained = [run for run in runs if run.outcome is not Outcome.OOM]
    return tuple(
        Rate(lr, tuple(run for run in result.of((lr, batch_size)) if run in trained))
        for lr in sorted({run.lr for run in trained})
    )
