"""Optuna Dashboard and the MLflow UI on loopback over one store, started and stopped together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil

from models.errors import InputError
from study.attachments import dashboard_files
from study.errors import UiError
from study.settings import is_server
from study.storage import Store

HOST = "127.0.0.1"
MLFLOW_PORT = 5000  # unless another is asked for
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10


@dataclass(frozen=True)
class Servers:
    """Where the pages are, and whether they still are."""

    dashboard_url: str
    mlflow_url: str
    started: "list[_Server]"

    def dashboard_page(self, study_id: int) -> str:
        """The study's page in Optuna Dashboard."""
        return f"{self.dashboard_url}dashboard/studies/{study_id}"

    def comparison_page(self, experiment_id: str) -> str:
        """MLflow's charts of an experiment's runs, the best first."""
        return comparison_page(self.mlflow_url, [experiment_id])

    def check(self) -> None:
        """Raise UiError if a server has ended by itself."""
        for server in self.started:
            server.check()


def comparison_page(mlflow_url: str, experiment_ids: Sequence[str]) -> str:
    """MLflow's charts of the runs of one experiment, or of several together, the best first.

    Sorted by a metric, MLflow lists the trials themselves; by default they hide below their
    parent.
    """
    order = quote("metrics.`val_accuracy`")
    query = f"workflowType=machine_learning&compareRunsMode=CHART&orderByKey={order}"
    page = f"experiments/{experiment_ids[0]}/runs?"
    if len(experiment_ids) > 1:
        page = f"compare-experiments/s?experiments={quote(json.dumps(list(experiment_ids)))}&"
    return f"{mlflow_url.rstrip('/')}/#/{page}{query}&orderByAsc=false"


@contextmanager
def serve(
    store: Store, mlflow_uri: str, ports: tuple[int, int], data_dir: Path
) -> Iterator[Servers]:
    """Serve both UIs for as long as the context lasts; then stop all that they started.

    `mlflow_uri` that is an http address is shown as it is. Logs, and the files that reports left
    for the dashboard, lie in `data_dir`. Raises UiError where a server does not start.
    """
    log_dir = data_dir / "logs"
    started = [_dashboard_server(store.optuna_url, ports[0], log_dir, dashboard_files(data_dir))]
    mlflow_url = mlflow_uri
    if not is_server(mlflow_uri):
        started.append(_mlflow_server(mlflow_uri, ports[1], log_dir))
        mlflow_url = started[-1].url
    with ExitStack() as stack:
        for server in started:
            stack.enter_context(server.running())
        for server in started:
            server.wait()
        yield Servers(started[0].url, mlflow_url, started)


class _Server:
    """A web server in a process group of its own, so that all its children stop with it."""

    def __init__(
        self, command: list[str], environment: dict[str, str], url: str, log: Path
    ) -> None:
        self.log = log
        self.command = command
        self.environment = environment
        self.url = url

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the server; at the end stop its whole group."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield
        finally:
            self._stop()

    def wait(self) -> None:
        """Wait until the server answers; raises UiError if it ends or takes too long."""
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            self.check()
            try:
                if not self._listens():
                    raise ConnectionRefusedError
                with urllib.request.urlopen(self.url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise UiError(f"{self.url} did not answer within {START_TIMEOUT_S} s (log: {self.log})")

    def check(self) -> None:
        """Raise UiError if the server has ended."""
        if self.process.poll() is not None:
            raise UiError(f"the server of {self.url} has ended: {self._last_words()}")

    def _stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                continue

    def _listens(self) -> bool:
        """Whether one of this server's processes, and no other program, has its port."""
        port = urlsplit(self.url).port
        try:
            main = psutil.Process(self.process.pid)
            return any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for process in (main, *main.children(recursive=True))
                for connection in process.net_connections("tcp")
            )
        except psutil.NoSuchProcess:
            return False  # a child has just ended

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (log: {self.log})"


def _dashboard_server(storage_url: str, port: int, log_dir: Path, files: Path) -> _Server:
    # The URL goes through the environment: it may carry a password, and `ps` shows arguments.
    command = [sys.executable, "-m", "study.dashboard", HOST, str(port)]
    environment = {"BNVIT_DASHBOARD_STORAGE": storage_url, "BNVIT_DASHBOARD_FILES": str(files)}
    return _Server(command, environment, f"http://{HOST}:{port}/", log_dir / "dashboard.log")


def _mlflow_server(uri: str, port: int, log_dir: Path) -> _Server:
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    url = f"http://{HOST}:{port}/"
    return _Server([*command, "--workers", "1"], environment, url, log_dir / "mlflow.log")


def check_ports(*ports: int) -> None:
    """Raise InputError for equal ports, UiError for one that another program uses."""
    if len(set(ports)) < len(ports):
        raise InputError(f"--dashboard-port and --mlflow-port are both {ports[0]}; choose two")
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise UiError(
                    f"port {port} cannot be used ({error.strerror}); choose others with "
                    "--dashboard-port and --mlflow-port"
                ) from error
