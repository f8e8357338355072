"""Between which learning rates training stops being stable, as far as is known."""

from collections.abc import Mapping
from dataclasses import dataclass

from objectives.outcome import Outcome


@dataclass(frozen=True)
class Bracket:
    """Between which learning rates training stops being stable."""

    low: float | None  # the largest at which every seed stayed finite; None: at none
    high: float | None  # the smallest above it at which any diverged; None: none is above it


@dataclass(frozen=True)
class Trained:
    """What came of one learning rate: all its runs have ended."""

    outcomes: tuple[Outcome, ...]
    accuracy: float  # mean on the validation split; of a run that diverged that of guessing

    @property
    def is_stable(self) -> bool:
        """Whether no run diverged, and there were others than those that ran out of memory."""
        return Outcome.DIVERGED not in self.outcomes and Outcome.COMPLETE in self.outcomes


def bracket(known: Mapping[float, Trained]) -> Bracket:
    """Where training stops being stable, as far as these learning rates tell.

    Also where a lower one diverged and a higher one did not: the largest stable one counts.
    """
    low = max((lr for lr, found in known.items() if found.is_stable), default=None)
    above = (
        lr
        for lr, found in known.items()
        if Outcome.DIVERGED in found.outcomes and (low is None or lr > low)
    )
    return Bracket(low, min(above, default=None))


def limit_words(ends: Bracket, lr: tuple[float, float]) -> str:
    """`ends` in words, of learning rates that were tried in the range `lr`."""
    if ends.low is None:
        return f"no learning rate from {lr[0]:.3g} on is stable"
    if ends.high is None:
        return f"stable up to lr {ends.low:.3g}, above which none was seen to diverge"
    return f"stable up to lr {ends.low:.3g}, not at {ends.high:.3g}"
