"""`up` and `down`: start the services in the background, stop them and all that they left."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import psutil

from models.errors import InputError
from study import data_dir
from study.embedded import EmbeddedPostgres
from study.errors import StackError
from study.ports import why_taken
from study.settings import Settings, is_server
from study.stack.layout import Layout
from study.stack.login import USER
from study.stack.proxy import find_nginx
from study.stack.state import KeeperLock, State, is_alive

STOP_TIMEOUT_S = 45.0  # for services, or workers with their trials, to end
POLL_S = 0.1

log = logging.getLogger(__name__)


def up(settings: Settings, port: int) -> Iterator[str]:
    """Start what does not run; tells people what is done.

    Raises InputError or a BnvitError that says why it does not work; nothing runs then that did
    not run before.
    """
    settings.check()
    if settings.mlflow_uri is not None and is_server(settings.mlflow_uri):
        raise InputError(
            f"'up' starts an MLflow of its own, and {settings.mlflow_label} was given; unset "
            "MLFLOW_TRACKING_URI, or look at the studies with 'bnvit-study ui'"
        )
    data_dir.prepare(settings.data_dir)
    layout = Layout(settings.data_dir)
    with _unusable_told(layout):
        yield from _up(settings, layout, port)


def _up(settings: Settings, layout: Layout, port: int) -> Iterator[str]:
    if KeeperLock(layout.folder).is_held():
        state = State.read(layout.folder)
        if state is None:
            raise StackError("another 'up' or 'down' is at work on this data folder; wait for it")
        yield from ["already up", *_pages(state)]
        return
    _end_leftovers(layout)
    _check_ports(port)
    yield "starting Postgres, MLflow and Optuna Dashboard"
    _start_keeper(settings, layout, port)
    state = State.read(layout.folder)
    if state is None:
        raise StackError(f"the stack has ended again; see {layout.data_dir / 'logs' / 'stack.log'}")
    yield from [*_pages(state), "bnvit-study down stops all of it."]


@dataclass(frozen=True)
class Downing:
    """What `down` is to stop."""

    layout: Layout
    server: EmbeddedPostgres
    is_up: bool
    users: Sequence[psutil.Process]  # others that work on the embedded store

    def describe_users(self) -> str:
        """Who else works on the store, in words."""
        return ", ".join(f"{_command_of(one)} (process {one.pid})" for one in self.users)

    def carry_out(self) -> list[str]:
        """Stop all; returns what to tell people. Raises StackError if something does not end."""
        for process in self.users:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)
        _wait_for([partial(is_alive, process) for process in self.users], "a worker")
        with _unusable_told(self.layout):
            state = State.read(self.layout.folder)
        keeper = state.keeper.process() if state is not None else None
        if keeper is not None:
            keeper.send_signal(signal.SIGTERM)
            _wait_for([partial(is_alive, keeper)], "the stack")
        leftovers = _end_leftovers(self.layout) | self.server.stop_if_unused()
        if not (self.is_up or leftovers or self.users):
            return ["nothing is running"]
        return ["stopped; studies, runs and files stay, 'bnvit-study up' shows them again"]


def find_running(settings: Settings) -> Downing:
    """What runs on the data folder."""
    layout = Layout(settings.data_dir)
    server = EmbeddedPostgres(settings.data_dir / "postgres")
    with _unusable_told(layout):
        state = State.read(layout.folder)
    keeper = state.keeper.process() if state is not None else None
    own = {os.getpid(), *([keeper.pid] if keeper is not None else [])}
    users = [process for process in server.users() if process.pid not in own]
    return Downing(layout, server, keeper is not None, users)


def _start_keeper(settings: Settings, layout: Layout, port: int) -> None:
    """Start the process that stays; raises StackError with its reason where it does not."""
    log_file = layout.data_dir / "logs" / "stack.log"
    log_file.parent.mkdir(exist_ok=True)
    read_end, write_end = os.pipe()
    command = [sys.executable, "-P", "-m", "study.stack.keeper", str(port), str(write_end)]
    with log_file.open("wb") as output, os.fdopen(read_end) as report:
        subprocess.Popen(
            command,
            env=_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[write_end],
        )
        os.close(write_end)
        told = report.read()
    if not told:
        raise StackError(f"the stack did not start; see {log_file}")
    if error := json.loads(told)["error"]:
        raise StackError(error)


def _environment(settings: Settings) -> Mapping[str, str]:
    """Settings by environment: a command line can be read by others, passwords included."""
    given = {
        "BNVIT_DATA_DIR": str(settings.data_dir),
        "BNVIT_STORAGE_URL": settings.storage_url or "",
        "BNVIT_MLFLOW_URI": "" if settings.is_tracking_off else settings.mlflow_uri or "",
        "MLFLOW_TRACKING_URI": "",
    }
    return {**os.environ, **given}


def _pages(state: State) -> Iterator[str]:
    yield f"Optuna Dashboard: {state.dashboard_url}"
    yield f"MLflow:           {state.mlflow_url} (choose Model training at the top left)"
    if state.password_at is not None:
        yield f"Login:            user {USER}, password in {state.password_at}"
    else:
        yield (
            "No login:         without nginx the pages answer on this machine alone, to all of its "
            "users"
        )


def _check_ports(port: int) -> None:
    wanted = [port] if find_nginx() is not None else [port, port + 1]
    for one in wanted:
        if reason := why_taken(one):
            raise StackError(f"port {one} cannot be used ({reason}); choose another with --port")


def _end_leftovers(layout: Layout) -> bool:
    """End services whose keeper was killed; returns whether there were any.

    Raises StackError if one does not end.
    """
    state = State.read(layout.folder)
    if state is None or state.keeper.process() is not None:
        return False
    found = list(state.leftovers())
    for name, one in found:
        log.warning("ending %s, which was left behind", name)
        one.end()
    if left := [name for name, _ in state.leftovers()]:
        raise StackError(f"{', '.join(left)} cannot be ended; is it another user's?")
    State.forget(layout.folder)
    layout.tidy()
    return bool(found)


@contextmanager
def _unusable_told(layout: Layout) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise data_dir.unusable(layout.folder, error) from error


def _wait_for(running: Sequence[Callable[[], bool]], what: str) -> None:
    until_s = time.monotonic() + STOP_TIMEOUT_S
    while any(one() for one in running):
        if time.monotonic() > until_s:
            raise StackError(f"{what} does not end within {STOP_TIMEOUT_S:.0f} s; try again")
        time.sleep(POLL_S)


def _command_of(process: psutil.Process) -> str:
    """What a process of ours does: its command's first words, without options."""
    try:
        words = " ".join(process.cmdline()).split()  # a title is one word to psutil
    except psutil.Error:
        return "a process"
    named = [word for word in words if not word.startswith("-")]
    known = ("run", "worker", "fit", "sweep", "stability", "ui", "watch", "measure", "reproduce")
    found = next((word for word in named if word in known), None)
    return f"bnvit-study {found}" if found else "a process"
