"""Real servers, and a network between them, for tests that break these on purpose."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from study.postgres_programs import START_TIMEOUT_S, PostgresPrograms
from study.system_account import server_account
from tests.integration import network
from tests.integration.forks import fork_mlflow
from tests.integration.network import HOST
from tests.integration.processes import steady_port, until

MAX_CONNECTIONS = 300
HEALTH_TIMEOUT_S = 5


class _Context:
    """What a `with` statement needs of something that has `open` and `close`."""

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class TcpPostgres(_Context):
    """A Postgres server on a loopback port, with passwords, as a team shares one.

    The ordinary role `bnvit` owns the databases `optuna` and `mlflow`. Everybody must be allowed to
    enter `folder`, see `new_data_dir`. Losing power would lose data (fsync is off), `kill` does
    not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tcp-postgres"
        self.port = steady_port()
        self.password = secrets.token_hex(8)
        self.log_file = self.folder / "server.log"
        self._account = server_account()
        self._programs = PostgresPrograms(self.folder, self._account, self.log_file)
        self._data = self.folder / "data"
        self._runs = False

    def url(self, port: int | None = None) -> str:
        """Address of Optuna's database, by `port` where a proxy stands in front."""
        return self._url("bnvit", "optuna", port)

    def mlflow_url(self, port: int | None = None) -> str:
        """Address of MLflow's database, by `port` where a proxy stands in front."""
        return self._url("bnvit", "mlflow", port)

    def admin_url(self) -> str:
        """Address for the superuser `postgres`, who can look at and end any connection."""
        return self._url("postgres", "postgres", None)

    def open(self) -> None:
        self.folder.mkdir()
        os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        self._initialise()
        self.start()
        with psycopg.connect(self.admin_url(), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE bnvit LOGIN PASSWORD '{self.password}'".encode())
            for name in ("optuna", "mlflow"):
                connection.execute(f"CREATE DATABASE {name} OWNER bnvit".encode())

    def close(self) -> None:
        if self._runs:
            self._stop("fast")

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        self._programs.run(
            "pg_ctl", "start", "-D", str(self._data), "-w", "-t", str(START_TIMEOUT_S),
            "-l", str(self.log_file),
        )  # fmt: skip
        self._runs = True

    def restart(self) -> None:
        """Stop in order, which ends every connection with a word of farewell, and start."""
        self._stop("fast")
        self.start()

    def kill(self) -> None:
        """Stop as in a crash: at once, no checkpoint; the next `start` recovers from the log."""
        self._stop("immediate")

    def _url(self, role: str, database: str, port: int | None) -> str:
        return f"postgresql://{role}:{self.password}@{HOST}:{port or self.port}/{database}"

    def _stop(self, mode: str) -> None:
        self._programs.run(
            "pg_ctl", "stop", "-D", str(self._data), "-m", mode, "-w", "-t", str(START_TIMEOUT_S)
        )
        self._runs = False

    def _initialise(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        os.chown(password_file, self._account.pw_uid, self._account.pw_gid)
        self._programs.run(
            "initdb", "-D", str(self._data), "-U", "postgres", f"--pwfile={password_file}",
            "--encoding=UTF8", "--locale=C", "--auth-local=reject", "--auth-host=scram-sha-256",
            "--no-instructions", "--no-sync",
        )  # fmt: skip
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = '{HOST}'\n"
                f"port = {self.port}\n"
                "unix_socket_directories = ''\n"
                f"max_connections = {MAX_CONNECTIONS}\n"
                "fsync = off\n"
            )


class Proxy(_Context):
    """A network between clients and the server at `target_port` of this machine.

    It is a process of its own, see `network`, as a busy thread beside it would slow it down.
    `freeze`, `drop`, `thaw` and `cut` have taken effect when they return.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0  # known when it is open
        self._process = subprocess.Popen(
            [sys.executable, "-I", network.__file__, str(target_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def open(self) -> None:
        self.port = int(self._read())

    def close(self) -> None:
        """End; connections that are open are aborted."""
        self._process.communicate()

    def freeze(self) -> None:
        """Forward nothing from now on and close nothing.

        The kernel goes on for the other side: it takes new connections and the first few MB of
        what is sent, and answers keepalive probes, as it does for a stopped process.
        """
        self._tell("freeze")

    def drop(self) -> None:
        """Freeze, and lose every packet that peers send, new connections' first ones included.

        Keepalive probes and sent data stay unanswered, as when a cable is pulled. Works where
        `network.can_drop()`.
        """
        self._tell("drop")

    def thaw(self) -> None:
        """Forward again, what has been held back first.

        After `drop` peers send again when their timers end, at worst after as long as it lasted.
        """
        self._tell("thaw")

    def cut(self) -> None:
        """Abort all connections, those waiting to be taken included, by RST to both peers."""
        self._tell("cut")

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._read() == "done\n"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class MlflowServer(_Context):
    """An MLflow server that keeps artifacts in `folder` and the rest at `backend_uri`.

    It stays at the same address when it is killed and started again.
    """

    def __init__(self, folder: Path, backend_uri: str) -> None:
        self.folder = folder
        self.log_file = folder / "mlflow-server.log"
        self.port = steady_port()
        self.uri = f"http://{HOST}:{self.port}"
        self._backend_uri = backend_uri
        self._process: ForkServerProcess | None = None

    def open(self) -> None:
        self.start()

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "OMP_NUM_THREADS": "1",
        }
        arguments = ["--host", HOST, "--port", str(self.port)]
        arguments += ["--backend-store-uri", self._backend_uri]
        arguments += ["--artifacts-destination", str(self.folder / "artifacts")]
        self._process = process = fork_mlflow(arguments, environment, self.log_file)
        until(lambda: process.exitcode is not None or self._answers())
        assert process.exitcode is None, self.log_file.read_text()

    def kill(self) -> None:
        """Kill all its processes by SIGKILL and wait until they no longer listen."""
        assert self._process is not None, "it does not run"
        assert self._process.pid is not None, "it was started"
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._process = None
        until(self._is_gone)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=HEALTH_TIMEOUT_S):
                return True
        except (OSError, HTTPException):
            return False

    def _is_gone(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) != 0
