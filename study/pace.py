"""How fast a study has gone of late, and how long it will take at that pace."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from study.forecast import images_left
from study.overview import Overview, TrialRow

WINDOW = timedelta(hours=1)
LEAST = timedelta(seconds=1)  # less says nothing


@dataclass(frozen=True)
class Pace:
    """Of the last hour, or since the first of the trials that it has seen began."""

    trials_per_hour: float
    images: float  # trained
    images_per_s: float

    def left_s(self, seen: Overview) -> float | None:
        """Seconds that the open trials of the study will take; None before it has a first rung."""
        if self.images < seen.identity.rungs[0]:
            return None
        return images_left(seen) / self.images_per_s


def recent_pace(seen: Overview, now: datetime) -> Pace | None:
    """The study's pace at `now`, which has no time zone, as Optuna's times; None: nothing ran."""
    since = now - WINDOW
    spans = [
        (row, row.started, min(row.finished or now, now))
        for row in seen.trials
        if row.started is not None and (row.finished is not None or row.outcome == "running")
    ]
    recent = [(row, begin, end) for row, begin, end in spans if end > since]
    since = max(since, min((begin for _, begin, _ in recent), default=now))
    took = now - since
    if took < LEAST:
        return None
    counted = {row.number for row in seen.ended}
    ended = sum(row.number in counted for row, _, _ in recent)
    images = sum(_images_since(since, *span) for span in recent)
    seconds = took.total_seconds()
    return Pace(3600 * ended / seconds, images, images / seconds)


def _images_since(since: datetime, row: TrialRow, begin: datetime, end: datetime) -> float:
    """Images that a trial has seen since a time, taking it to have gone evenly."""
    if begin >= since:
        return row.images_seen
    return row.images_seen * ((end - since) / (end - begin))
