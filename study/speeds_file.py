"""Speeds that `measure -o` kept, read back."""

import json
from pathlib import Path
from typing import Any

from models.errors import InputError
from objectives.calibration import Calibration
from objectives.speed import Race, Timing
from study.speeds import Speeds, TaskSpeeds


def read_speeds(path: Path) -> Speeds:
    """The speeds in a file; raises InputError where there are none."""
    try:
        return speeds_from(json.loads(path.read_text()))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no speeds; 'bnvit-study measure -o' writes them") from error


def speeds_from(told: dict[str, Any]) -> Speeds:
    """Speeds from their plain values; raises KeyError, TypeError or ValueError."""
    tasks = tuple(_task(each) for each in told.pop("tasks"))
    models, cores = (tuple(told.pop(key)) for key in ("models", "cores"))
    return Speeds(models=models, cores=cores, tasks=tasks, **told)


def race_from(told: dict[str, Any]) -> Race:
    """A race from its plain values, as `speeds_from`."""
    timings = tuple(
        Timing(**{**each, "samples_s": tuple(each["samples_s"])}) for each in told["timings"]
    )
    return Race(timings, Calibration(**told["calibration"]), told["attempts"], told["is_narrow"])


def _task(told: dict[str, Any]) -> TaskSpeeds:
    race = race_from(told["race"])
    return TaskSpeeds(told["work"], told["batch_size"], race, told["loading_s"])
