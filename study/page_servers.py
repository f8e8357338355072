"""The two programs whose pages people open, as child processes: Optuna Dashboard and MLflow."""

import shlex
import sys
from pathlib import Path

from study.data_dir import dashboard_files
from study.server_process import Address, ServerProcess

MLFLOW_HOSTS = "localhost,localhost:*,127.0.0.1,127.0.0.1:*"  # as requests may call it


def dashboard_server(storage_url: str, address: Address, data_dir: Path) -> ServerProcess:
    """Optuna Dashboard over the store at `storage_url`, with the files that reports left for it."""
    where = f"{address.host}:{address.port}" if address.socket is None else f"unix:{address.socket}"
    # "-P": a package called "models" where the program was called is not ours.
    command = [sys.executable, "-P", "-m", "study.dashboard", where]
    environment = {
        "BNVIT_DASHBOARD_STORAGE": storage_url,
        "BNVIT_DASHBOARD_FILES": str(dashboard_files(data_dir)),
    }
    log = data_dir / "logs" / "dashboard.log"
    return ServerProcess("Optuna Dashboard", command, environment, address, log)


def mlflow_server(store_uri: str, address: Address, data_dir: Path) -> ServerProcess:
    """MLflow's server over its database at `store_uri`."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", address.host, "--port", str(address.port or 5000)]
    if address.socket is not None:  # which uvicorn then takes instead of host and port
        command += ["--uvicorn-opts", f"--uds {shlex.quote(str(address.socket))}"]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": store_uri,
        "MLFLOW_SERVER_ALLOWED_HOSTS": MLFLOW_HOSTS,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    log = data_dir / "logs" / "mlflow.log"
    return ServerProcess("MLflow", command, environment, address, log, health="/health")
