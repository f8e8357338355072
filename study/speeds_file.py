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
        told = json.loads(path.read_text())
        return _speeds(told)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no speeds; 'bnvit-study measure -o' writes them") from error


def _speeds(told: dict[str, Any]) -> Speeds:
    tasks = tuple(_task(each) for each in told.pop("tasks"))
    models, cores = (tuple(told.pop(key)) for key in ("models", "cores"))
    return Speeds(models=models, cores=cores, tasks=tasks, **told)


def _task(told: dict[str, Any]) -> TaskSpeeds:
    race = told["race"]
    timings = tuple(
        Timing(**{**each, "samples_s": tuple(each["samples_s"])}) for each in race["timings"]
    )
    found = Race(timings, Calibration(**race["calibration"]), race["attempts"], race["is_narrow"])
    return TaskSpeeds(told["work"], told["batch_size"], found, told["loading_s"])
