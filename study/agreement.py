"""Whether MLflow says of a study's trials what Optuna says."""

import math
from collections.abc import Iterator, Mapping

from objectives.outcome import Outcome
from study.overview import Overview, TrialRow
from study.tracking import TrialRecord

TOLERANCE = 1e-9  # between two records of one accuracy


def differences(seen: Overview, records: Mapping[int, TrialRecord]) -> list[str]:
    """What differs of the trials that have ended, a line each; nothing: all agree."""
    reported = {
        trial.number: trial.intermediate_values for trial in seen.source.get_trials(deepcopy=False)
    }
    lines: list[str] = []
    for row in seen.trials:
        if row.finished is None:
            continue
        record = records.get(row.number)
        if record is None:
            lines.append(f"trial {row.number} has no run")
        else:
            told = _of_trial(row, reported[row.number], record)
            lines += [f"trial {row.number} {line}" for line in told]
    return lines


def _of_trial(row: TrialRow, reported: Mapping[int, float], record: TrialRecord) -> Iterator[str]:
    """The last rungs of a trial that failed may have died with the worker that it killed."""
    if record.other_run_ids:
        yield f"has {1 + len(record.other_run_ids)} runs"
    if record.outcome != row.outcome:
        yield f"is {record.outcome or 'nothing'} in MLflow, {row.outcome} in Optuna"
    for rung in sorted({*reported, *record.val_accuracy}):
        values = record.val_accuracy.get(rung, [])
        if rung not in reported:
            yield f"has rung {rung} in MLflow only"
        elif not values:
            if row.outcome != Outcome.FAILED:
                yield f"lacks rung {rung} in MLflow"
        elif len(values) > 1:
            yield f"has rung {rung} {len(values)} times in MLflow"
        elif not math.isclose(values[0], reported[rung], rel_tol=0, abs_tol=TOLERANCE):
            told = f"{values[0]:.12g} at rung {rung} in MLflow, {reported[rung]:.12g} in Optuna"
            yield f"has {told}"
