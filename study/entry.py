"""Where the program starts: logging, signals, and what becomes of an error."""

import logging
import signal
import sys

import typer

from models.errors import BnvitError
from study.cli import app


def main() -> None:
    """Entry point: a known error is one line on stderr; --debug shows its trace."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    _log_to_stderr(logging.DEBUG if debug else logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: tidily
    try:
        sys.exit(app(arguments or ["--help"], prog_name="bnvit-study", standalone_mode=False))
    except BnvitError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except typer.exceptions.TyperException as error:
        _fail(f"{error.format_message()} {_usage(error)}", error.exit_code)
    except typer.Abort:
        _fail("stopped at once", 130)


def _usage(error: typer.exceptions.TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "bnvit-study"
    return f"See '{command} --help'."


def _fail(message: str, code: int) -> None:
    print(f"bnvit-study: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _log_to_stderr(level: int) -> None:
    class Handler(logging.Handler):
        """Writes to whatever stderr is at the time: a live table replaces it for a while."""

        def emit(self, record: logging.LogRecord) -> None:
            print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)

    logging.basicConfig(level=logging.WARNING, handlers=[Handler()])
    for package in ("study", "objectives", "models"):
        logging.getLogger(package).setLevel(min(level, logging.INFO))
