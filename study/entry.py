"""Where the program starts: logging, signals, and what becomes of an error."""

import gc
import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

import study.mlflow_variables  # noqa: F401 - set here, as threads must not set them
from models.errors import BnvitError, InputError
from study.cli import app
from study.cli_batch_stats import batch_stats_commands
from study.cli_experiments import experiment_commands
from study.cli_measure import measure_command
from study.cli_models import model_commands
from study.cli_recipes import recipe_commands
from study.cli_reports import report_commands
from study.cli_reproduce import reproduce_command
from study.cli_soup import soup_command
from study.cli_stability import stability_command
from study.cli_stack import stack_commands
from study.cli_team import team_commands
from study.logs import log_to_stderr
from study.torchrun import check_command

LOG_FORMATS = ("text", "json")
LOG_FORMAT_VARIABLE = "BNVIT_LOG_FORMAT"
DEBUG_VARIABLE = "BNVIT_DEBUG"
NEW_OBJECTS_PER_COLLECTION = 10_000
"""Python's own 700 spends a fifth of the start on walking through what imports have made."""

log = logging.getLogger(__name__)

experiment_commands(app)
stability_command(app)
measure_command(app)
report_commands(app)
reproduce_command(app)
model_commands(app)
recipe_commands(app)
soup_command(app)
batch_stats_commands(app)
team_commands(app)
stack_commands(app)


def main() -> None:
    """Entry point: a known error is one line on stderr; --debug shows its trace."""
    gc.set_threshold(NEW_OBJECTS_PER_COLLECTION)
    arguments, debug, log_format = _options(sys.argv[1:])
    log_to_stderr(logging.DEBUG if debug else logging.WARNING, as_json=log_format == "json")
    terminated = _end_tidily_on_sigterm()
    try:
        if log_format not in LOG_FORMATS:
            raise InputError(f"unknown --log-format '{log_format}'; write text or json")
        check_command(next(iter(arguments), None))
        sys.exit(app(arguments or ["--help"], prog_name="bnvit-study", standalone_mode=False))
    except BnvitError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code, log_format)
    except typer.exceptions.TyperException as error:
        told = error.format_message()
        end = "" if told.endswith((".", "?")) else "."
        _fail(f"{told}{end} {_usage(error)}", error.exit_code, log_format)
    except typer.Abort:
        if terminated and arguments[:1] == ["worker"]:  # before it had begun
            sys.exit(0)
        _fail("stopped at once", 130, log_format)


def _end_tidily_on_sigterm() -> list[int]:
    """Let SIGTERM end the program as Ctrl-C does; returns where it is noted."""
    noted: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    return noted


def _usage(error: typer.exceptions.TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "bnvit-study"
    return f"See '{command} --help'."


def _fail(message: str, code: int, log_format: str) -> NoReturn:
    line = " ".join(message.split())
    if log_format == "json":
        log.error("%s", line)
    else:
        print(f"bnvit-study: {line}", file=sys.stderr)
    sys.exit(code)


def _options(arguments: list[str]) -> tuple[list[str], bool, str]:
    """The arguments without --debug and --log-format, wherever they stand, and what those say."""
    rest: list[str] = []
    log_format = os.environ.get(LOG_FORMAT_VARIABLE) or LOG_FORMATS[0]
    words = iter(arguments)
    for word in words:
        if word == "--debug":
            os.environ[DEBUG_VARIABLE] = "1"  # for the processes that this one starts, too
        elif word.partition("=")[0] == "--log-format":
            log_format = word.partition("=")[2] if "=" in word else next(words, "")
            os.environ[LOG_FORMAT_VARIABLE] = log_format
        else:
            rest.append(word)
    return rest, bool(os.environ.get(DEBUG_VARIABLE)), log_format


if __name__ == "__main__":
    main()
