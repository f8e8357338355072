"""What a worker has done since it started, kept for whoever asks while it works."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from objectives.outcome import Outcome
from study.ledger import Ledger


@dataclass
class Held:
    """A trial in the worker's hands."""

    study: str
    ledger: Ledger
    began_s: float = field(default_factory=time.monotonic)
    outcome: Outcome | None = None  # None: it trains, or was not ended here

    @property
    def images(self) -> int:
        """Trained since it was begun here."""
        return self.ledger.progress.seen - self.ledger.images_before

    @property
    def age_s(self) -> float:
        """Since it was begun here."""
        return time.monotonic() - self.began_s

    @property
    def still_s(self) -> float:
        """Since its last training step, or since it was begun here."""
        return time.monotonic() - max(self.ledger.stepped_at_s, self.began_s)

    @property
    def images_per_s(self) -> float | None:
        """Of the training steps up to the latest rung; None: nothing is known yet."""
        run = self.ledger.run
        return run.curve[-1].train_images_per_s if run is not None and run.curve else None


@dataclass
class Sums:
    """Of one study: what this worker has done."""

    ended: Counter[Outcome] = field(default_factory=Counter)
    durations_s: list[float] = field(default_factory=list)  # of the trials that ended, from claims
    images: int = 0  # trained


class Tally:
    """The trial that a worker holds, and sums over those before, by study."""

    def __init__(self) -> None:
        self.held: Held | None = None
        self._sums: dict[str, Sums] = {}
        self._lock = threading.Lock()  # so that no image is missing or counted twice

    @contextmanager
    def holding(self, study: str, ledger: Ledger) -> Iterator[Held]:
        """A trial that was just claimed; whoever ends it says its outcome before this is over."""
        held = Held(study, ledger)
        with self._lock:
            self._sums.setdefault(study, Sums())
            self.held = held
        try:
            yield held
        finally:
            with self._lock:
                self._sums[study].images += held.images
                self.held = None
            if held.outcome is not None:
                self.count(study, held.outcome, held.age_s)

    def count(self, study: str, outcome: Outcome, duration_s: float | None = None) -> None:
        """A trial has ended here; without a duration if it was not trained."""
        with self._lock:
            sums = self._sums.setdefault(study, Sums())
            sums.ended[outcome] += 1
            if duration_s is not None:
                sums.durations_s.append(duration_s)

    def sums(self) -> dict[str, Sums]:
        """By study; with the images of the trial that is held."""
        with self._lock:
            found = {
                study: Sums(Counter(sums.ended), list(sums.durations_s), sums.images)
                for study, sums in self._sums.items()
            }
            if self.held is not None:
                found[self.held.study].images += self.held.images
        return found
