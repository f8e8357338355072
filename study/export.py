"""A study's trials as a table for other programs: CSV, JSON or Parquet."""

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pandas as pd  # type: ignore[import-untyped]

from models.errors import InputError
from study.overview import Overview, TrialRow

_FIELDS = (
    "number",
    "state",
    "outcome",
    "lr",
    "batch_size",
    "val_accuracy",
    "images_seen",
    "suggested_by",
    "attempt",
    "worker",
    "started",
    "finished",
    "duration_s",
    "mlflow_run_id",
    "reason",
)
_TYPES = {  # those that pandas would not find where all values are missing
    "batch_size": "Int64",
    "lr": "float64",
    "val_accuracy": "float64",
    "duration_s": "float64",
    "started": "datetime64[us, UTC]",
    "finished": "datetime64[us, UTC]",
    "suggested_by": "string",
    "worker": "string",
    "mlflow_run_id": "string",
    "reason": "string",
}


def export_trials(overview: Overview, format_: str, output: Path | None) -> Path | None:
    """Write all trials as `format_`, one of FORMATS, a row each.

    Without `output` to standard output, or for parquet to STUDY.parquet. Returns the file written.
    A file that is there is replaced at once, and stays as it is where this fails. Raises
    InputError for a file that cannot be written.
    """
    write = _WRITERS[format_]
    if output is None and format_ == "parquet":
        output = Path(f"{overview.study}.parquet")
    frame = trials_frame(overview)
    if output is None:
        write(frame, sys.stdout.buffer)
        sys.stdout.flush()
        return None
    try:
        replace_file(output, lambda file: write(frame, file))
    except OSError as error:
        raise InputError(f"cannot write {output} ({error.strerror or error})") from error
    return output


def trials_frame(overview: Overview) -> pd.DataFrame:
    """All trials, a row each; times in UTC, accuracies also at each rung (in images seen)."""
    reported = {
        trial.number: trial.intermediate_values
        for trial in overview.source.get_trials(deepcopy=False)
    }
    rungs = {f"val_accuracy_at_{rung}": rung for rung in overview.identity.rungs}
    others = [one.name for one in overview.identity.others]
    rows = [
        _values(row)
        | {name: row.others.get(name) for name in others}
        | {name: reported.get(row.number, {}).get(rung) for name, rung in rungs.items()}
        for row in overview.trials
    ]
    frame = pd.DataFrame(rows, columns=[*_FIELDS, *others, *rungs])
    return frame.astype(_TYPES | dict.fromkeys(rungs, "float64"))


def _values(row: TrialRow) -> dict[str, Any]:
    started, finished = _utc(row.started), _utc(row.finished)
    duration_s = (finished - started).total_seconds() if started and finished else None
    given = {name: getattr(row, name) for name in _FIELDS if name != "duration_s"}
    return given | {"started": started, "finished": finished, "duration_s": duration_s}


def _utc(time: datetime | None) -> datetime | None:
    """Optuna's times are this machine's, without saying so."""
    return time.astimezone(UTC) if time is not None else None


def _write_csv(frame: pd.DataFrame, file: IO[bytes]) -> None:
    frame.to_csv(file, index=False, date_format="%Y-%m-%dT%H:%M:%S.%fZ")


def _write_json(frame: pd.DataFrame, file: IO[bytes]) -> None:
    """With all digits, which pandas' own would round."""
    plain = frame.astype(object).where(frame.notna(), None)
    text = json.dumps(plain.to_dict("records"), default=_iso, indent=2)
    file.write(f"{text}\n".encode())


def _write_parquet(frame: pd.DataFrame, file: IO[bytes]) -> None:
    frame.to_parquet(file, index=False)


_WRITERS: dict[str, Callable[[pd.DataFrame, IO[bytes]], None]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
    "json": _write_json,
}


FORMATS = tuple(_WRITERS)


def _iso(value: datetime) -> str:
    return value.isoformat()


def replace_file(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file whole or not at all. What is no file, as /dev/stdout, is written as it is."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            write(file)
        return
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
