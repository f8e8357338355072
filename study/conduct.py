"""What `run` and the experiments do: have studies trained to their end, and tell about it."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

import typer

from study import progress
from study.briefing import next_steps, opening
from study.cli_options import console_on, print_line
from study.coordinator import coordinate
from study.overview import Overview
from study.patience import Patience
from study.placing import cluster_of, placing
from study.request import Request
from study.service import Session, open_sessions
from study.settings import Settings
from study.spares import Spare, spares_for
from study.stop import stop_on_signals
from study.studies import is_stopped
from study.summary import summary
from study.tables import trials_table

if TYPE_CHECKING:
    from rich.console import Console

End = Callable[[Sequence[Session], Sequence[Overview]], None]
"""Tells at the end how the studies stand, on standard output."""


def conducted(
    requests: Sequence[Request], settings: Settings, as_json: bool, end: End | None = None
) -> NoReturn:
    """Train what is asked for and end the program with the right exit code."""
    try:
        with spares_for(requests, settings) as spares:
            code = conduct(requests, settings, as_json, end, spares)
    except KeyboardInterrupt:  # of which Typer would make an exit without a word
        raise typer.Abort from None
    raise typer.Exit(code)


def conduct(
    requests: Sequence[Request],
    settings: Settings,
    as_json: bool,
    end: End | None,
    spares: list[Spare],
) -> int:
    """Have the studies trained together, to their end or until a stop; returns the exit code.

    `end` tells of them then, instead of the usual words.
    """
    console, notes = console_on(), console_on(stderr=as_json)
    tell = end or (_tell_json if as_json else _tell)
    return carry_out(requests, settings, console, notes, as_json, tell, spares)


def carry_out(
    requests: Sequence[Request],
    settings: Settings,
    console: "Console",
    notes: "Console",
    quiet: bool = False,
    end: End | None = None,
    spares: list[Spare] | None = None,
) -> int:
    """As `conduct`; progress is shown on `console`, and without an `end` no results are told."""
    with ExitStack() as stack:
        cluster = stack.enter_context(cluster_of(requests, settings))
        sessions = stack.enter_context(
            open_sessions(requests, settings, lambda line: print_line(notes, line))
        )
        placed = placing(sessions[0], cluster, spares or [], lambda line: print_line(notes, line))
        stop = stack.enter_context(stop_on_signals())  # until here Ctrl-C ends the process at once
        for line in opening(sessions, placed):
            print_line(notes, line)
        patience = Patience(settings.store_patience_s, stop)
        with progress.shown(sessions, console, patience, quiet):
            seen = coordinate(sessions, placed, patience)
        if stop.requested:
            print_line(notes, "stopping; a trial that was running keeps its place")
        elif patience(lambda: any(is_stopped(session.study) for session in sessions)):
            print_line(notes, "stopped, as somebody asked by 'bnvit-study stop'")
        if end is not None:
            end(sessions, seen)
    return stop.exit_code


def _tell_json(_: Sequence[Session], seen: Sequence[Overview]) -> None:
    told = [one.as_dict() for one in seen]
    print(json.dumps(told if len(told) > 1 else told[0], default=str, indent=2))


def _tell(sessions: Sequence[Session], seen: Sequence[Overview]) -> None:
    console = console_on()
    for one in seen:
        if len(seen) > 1:
            print_line(console, f"{one.study}:")
        if console.is_terminal:
            console.print(trials_table(one))
        for line in summary(one):
            print_line(console, line)
    for line in next_steps(sessions, seen):
        print_line(console, line)
