"""What a line of a spool says."""

import json
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

from study.tracking import StudyRuns, TrialLabel


@dataclass(frozen=True)
class Line:
    """One thing to tell MLflow; of a trial, or of the study where `trial_id` is None."""

    op: str
    study: str
    study_uuid: str
    experiment_id: str
    parent_run_id: str
    trial_id: int | None = None  # Optuna's
    number: int | None = None
    attempt: int | None = None
    at_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> StudyRuns:
        """Where the study is recorded."""
        return StudyRuns(self.experiment_id, self.parent_run_id)

    @property
    def label(self) -> TrialLabel:
        """What identifies the trial's run."""
        assert self.number is not None  # only asked of a trial's line
        return TrialLabel(self.study, self.study_uuid, self.number)

    def to_json(self) -> str:
        """The line without its end. What is not JSON becomes text."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, raw: bytes) -> "Line":
        """The line that was written as `raw`; raises ValueError where it is damaged."""
        found = json.loads(raw)  # its errors, and those of decoding, are ValueErrors
        if not isinstance(found, dict) or set(found) != _TYPES.keys():
            raise ValueError("not the fields of a line")
        for name, type_ in _TYPES.items():
            if not isinstance(found[name], type_):
                raise ValueError(f"{name} is not of type {type_}")
        return cls(**found)


def _checkable(hint: Any) -> Any:
    return dict if hint == dict[str, Any] else hint


_TYPES = {item.name: _checkable(get_type_hints(Line)[item.name]) for item in fields(Line)}
