"""Log lines: for people, or one JSON object each."""

import json
import logging
import re

import optuna
import pytest

from study.logs import context, log_to_stderr


def test_json_lines_say_what_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(logging.WARNING, as_json=True)
    log = logging.getLogger("study.test")
    with context(worker="w"), context(study="s", trial=3, attempt=2):
        log.info("goes on from %d images", 7)
    log.warning("after")
    inside, after = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert inside["message"] == "goes on from 7 images"
    told = {key: inside[key] for key in ("level", "worker", "study", "trial", "attempt")}
    assert told == {"level": "info", "worker": "w", "study": "s", "trial": 3, "attempt": 2}
    assert {"time", "node", "pid"} <= set(inside)
    assert "study" not in after


def test_lines_for_people_are_short(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(logging.WARNING, as_json=False)
    with context(study="s"):
        logging.getLogger("study.test").warning("beware")
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: beware\n", capsys.readouterr().err)


def test_optuna_speaks_by_our_handlers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(logging.WARNING, as_json=True)
    optuna.logging.get_logger("optuna.storages").warning("of an outage, on many\nlines")
    assert capsys.readouterr().err == ""
    optuna.logging.get_logger("optuna.storages").error("an error")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "an error"
