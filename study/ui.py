"""Optuna Dashboard and the MLflow UI on loopback over one store, started and stopped together."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from models.errors import InputError
from study.errors import UiError
from study.page_servers import dashboard_server, mlflow_server
from study.ports import why_taken
from study.server_process import Address, ServerProcess
from study.settings import is_server
from study.storage import Store

MLFLOW_PORT = 5000  # unless another is asked for


@dataclass(frozen=True)
class Servers:
    """Where the pages are, and whether they still are."""

    dashboard_url: str
    mlflow_url: str
    started: list[ServerProcess]

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
    started = [dashboard_server(store.optuna_url, Address(port=ports[0]), data_dir)]
    mlflow_url = mlflow_uri
    if not is_server(mlflow_uri):
        started.append(mlflow_server(mlflow_uri, Address(port=ports[1]), data_dir))
        mlflow_url = str(started[-1].address)
    with ExitStack() as stack:
        for server in started:
            stack.callback(server.stop)
            server.start()
        for server in started:
            server.wait()
        yield Servers(str(started[0].address), mlflow_url, started)


def check_ports(*ports: int) -> None:
    """Raise InputError for equal ports, UiError for one that another program uses."""
    if len(set(ports)) < len(ports):
        raise InputError(f"--dashboard-port and --mlflow-port are both {ports[0]}; choose two")
    for port in ports:
        if reason := why_taken(port):
            raise UiError(
                f"port {port} cannot be used ({reason}); choose others with "
                "--dashboard-port and --mlflow-port"
            )
