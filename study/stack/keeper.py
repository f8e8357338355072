"""The process behind `up`: starts the services, starts again what dies, stops all at the end.

Run as `python -m study.stack.keeper PORT REPORT`, with settings in the environment; REPORT is a
file descriptor on which it says, in one line of JSON, that all pages answer, or why not.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg
from sqlalchemy import make_url

from models.errors import BnvitError
from study.data_dir import unusable
from study.embedded import EmbeddedPostgres
from study.errors import StackError, StorageError
from study.logs import log_to_stderr
from study.postgres_cluster import ROLE
from study.server_process import ServerProcess
from study.settings import Settings, read_settings
from study.stack.layout import Layout
from study.stack.proxy import find_nginx
from study.stack.roles import READER, ensure_role, let_read
from study.stack.services import Services, with_login, without_login
from study.stack.state import KeeperLock, Running, State
from study.stop import Stop, stop_on_signals
from study.storage import CREATE_LOCK, Store, libpq_url, open_store, tracking_uri
from study.tracking import open_tracker

POLL_S = 0.5
STEADY_S = 60.0  # a service that ran for so long is started again at once
LONGEST_PAUSE_S = 60.0  # before a service that died is started again

log = logging.getLogger(__name__)


def main() -> None:
    """Keep the stack until SIGTERM; exits with 1 if it could not be started."""
    port, report = (int(word) for word in sys.argv[1:])
    log_to_stderr(logging.INFO, as_json=False)
    settings = read_settings({})
    with os.fdopen(report, "w") as told:
        try:
            with stop_on_signals() as stop, _kept(settings, port) as keeper:
                json.dump({"error": None}, told)
                told.close()
                keeper.look_after(stop)
        except BnvitError as error:
            if told.closed:
                raise
            json.dump({"error": str(error)}, told)
            sys.exit(1)


@contextmanager
def _kept(settings: Settings, port: int) -> Iterator["Keeper"]:
    """All services, answering, for as long as the context lasts."""
    layout = Layout(settings.data_dir)
    with ExitStack() as stack:
        try:
            layout.prepare()
            lock = KeeperLock(layout.folder).take()
        except OSError as error:
            raise unusable(layout.folder, error) from error
        if lock is None:
            raise StackError("another 'up' is at work on this data folder; wait for it")
        stack.callback(os.close, lock)
        store = stack.enter_context(open_store(settings))
        server = None
        if settings.storage_url is None:
            server = stack.enter_context(EmbeddedPostgres(settings.data_dir / "postgres"))
        services = _services(settings, layout, port, store, server)
        for process in services.processes:
            stack.callback(process.stop)
            process.start()
        stack.callback(State.forget, layout.folder)
        stack.callback(layout.tidy)
        keeper = Keeper(layout, services, server)
        keeper.note()
        for process in services.processes:
            process.wait()
        yield keeper


def _services(
    settings: Settings, layout: Layout, port: int, store: Store, server: EmbeddedPostgres | None
) -> Services:
    mlflow_store = tracking_uri(settings.mlflow_uri, store)
    with store.locked(CREATE_LOCK):
        open_tracker(mlflow_store).disconnect()  # which makes its tables, or says what is wrong
    url = store.optuna_url if server is None else _reader_url(server)
    nginx = find_nginx()
    if nginx is None:
        return without_login(layout, port, url, mlflow_store)
    return with_login(layout, nginx, port, url, mlflow_store)


def _reader_url(server: EmbeddedPostgres) -> str:
    """The store's address as a role that changes nothing there."""
    url = make_url(server.url("optuna"))
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        ensure_role(connection, READER)
        let_read(connection, ROLE)
    server.admit(READER)
    return url.set(username=READER).render_as_string(hide_password=False)


@dataclass
class _Watch:
    """When a service was last started, and how often before in a row."""

    started_s: float
    restarts: int = 0


class Keeper:
    """Looks after services that run."""

    def __init__(self, layout: Layout, services: Services, server: EmbeddedPostgres | None) -> None:
        self._layout = layout
        self._services = services
        self._server = server
        self._postgres_again_s = 0.0  # when it is looked after next, by the monotonic clock
        self._watches = {one.name: _Watch(time.monotonic()) for one in services.processes}

    def note(self) -> None:
        """Write down what runs."""
        running = {
            one.name: Running.of(one.process.pid)
            for one in self._services.processes
            if one.process is not None and not one.has_ended
        }
        State(
            keeper=Running.of(os.getpid()),
            services=running,
            dashboard_url=self._services.dashboard_url,
            mlflow_url=self._services.mlflow_url,
            password_at=self._services.password_at,
        ).write(self._layout.folder)

    def look_after(self, stop: Stop) -> None:
        """Start again what has died, until a stop is asked for."""
        while not stop.wait(POLL_S):
            self._look_after_postgres()
            for one in self._services.processes:
                if one.has_ended and self._is_time(one):
                    log.warning("%s had died; it is started again", one.name)
                    one.stop()  # children that it left behind
                    one.start()
                    self.note()

    def _look_after_postgres(self) -> None:
        if self._server is None or time.monotonic() < self._postgres_again_s:
            return
        try:
            if self._server.revive():
                log.warning("Postgres had died; it was started again")
        except StorageError as error:
            log.warning("Postgres has died and cannot be started: %s", error)
            self._postgres_again_s = time.monotonic() + LONGEST_PAUSE_S

    def _is_time(self, service: ServerProcess) -> bool:
        """Whether to start a service again: at once if it ran for long, else later each time."""
        watch = self._watches[service.name]
        ran_s = time.monotonic() - watch.started_s
        if ran_s > STEADY_S:
            watch.restarts = 0
        if ran_s < min(POLL_S * 2.0**watch.restarts, LONGEST_PAUSE_S):
            return False
        watch.restarts = min(watch.restarts + 1, 10)
        watch.started_s = time.monotonic()
        return True


if __name__ == "__main__":
    main()
