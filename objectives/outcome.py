"""How a trial can end."""

from enum import StrEnum


class Outcome(StrEnum):
    """How a trial ended. All but FAILED count towards the study's trials."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    OOM = "oom"
    FAILED = "failed"
