"""The services of a stack on one machine, as processes: dashboard, MLflow, nginx before them."""

from dataclasses import dataclass

from study.page_servers import dashboard_server, mlflow_server
from study.ports import LOOPBACK
from study.server_process import Address, ServerProcess
from study.stack.layout import SOCKETS, Layout
from study.stack.proxy import Listener, Proxy


@dataclass(frozen=True)
class Services:
    """What is to run, in the order in which it is started, and where its pages are then."""

    processes: list[ServerProcess]
    dashboard_url: str
    mlflow_url: str
    password_at: str | None  # None: there is no login


def with_login(
    layout: Layout, nginx: str, port: int, dashboard_store: str, mlflow_store: str
) -> Services:
    """Both pages on one port of the loopback, behind nginx, which alone can reach them."""
    dashboard, mlflow = (layout.socket(name) for name in SOCKETS)
    logs = layout.data_dir / "logs"
    proxy = Proxy(
        folder=layout.folder,
        run=layout.folder,
        listeners=[Listener(f"{LOOPBACK}:{port}")],
        dashboard=f"http://unix:{dashboard.socket}:",
        mlflow=f"http://unix:{mlflow.socket}:",
        mlflow_host="localhost",
        access_log=str(logs / "nginx-access.log"),
        error_log=str(logs / "nginx.log"),
        account=layout.account,
    )
    proxy.write(layout.login())
    door = Address(port=port)
    command = [nginx, "-e", "stderr", "-p", str(layout.folder), "-c", str(proxy.configuration)]
    command += ["-g", "daemon off;"]
    processes = [
        dashboard_server(dashboard_store, dashboard, layout.data_dir),
        mlflow_server(mlflow_store, mlflow, layout.data_dir),
        ServerProcess("nginx", command, {}, door, logs / "nginx-start.log", health="/healthz"),
    ]
    return Services(processes, f"{door}dashboard", str(door), layout.password_at)


def without_login(layout: Layout, port: int, dashboard_store: str, mlflow_store: str) -> Services:
    """The pages on two ports of the loopback, open to all who use this machine."""
    dashboard, mlflow = Address(port=port), Address(port=port + 1)
    processes = [
        dashboard_server(dashboard_store, dashboard, layout.data_dir),
        mlflow_server(mlflow_store, mlflow, layout.data_dir),
    ]
    return Services(processes, f"{dashboard}dashboard", str(mlflow), None)
