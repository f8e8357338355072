"""Everything that a study needs, for real: Postgres behind a network, MLflow, a shared folder."""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from study.settings import Settings
from tests.chaos.nodes import Node
from tests.conftest import SUBSET, new_data_dir
from tests.integration.servers import MlflowServer, Proxy, TcpPostgres

LEASE_S = 4.0
MODEL = "--set dim=16 --set depth=2 --set heads=2 --set dim_head=8 --set mlp_dim=32"


@dataclass
class Stage:
    """The servers, and the nodes that are connected to them."""

    folder: Path
    postgres: TcpPostgres
    network: Proxy
    mlflow: MlflowServer | None  # None: MLflow's database, without a server
    nodes: list[Node]

    @property
    def mlflow_uri(self) -> str:
        """Where MLflow is."""
        return self.postgres.mlflow_url() if self.mlflow is None else self.mlflow.uri

    @property
    def settings(self) -> Settings:
        """How to reach everything undisturbed."""
        return Settings(
            data_dir=self.folder / "judge",
            storage_url=self.postgres.url(),
            mlflow_uri=self.mlflow_uri,
            lease_s=LEASE_S,
        )

    def environment(self) -> dict[str, str]:
        """What a process on a node is told: Postgres lies behind the network that breaks."""
        return {
            "BNVIT_STORAGE_URL": self.postgres.url(self.network.port),
            "BNVIT_MLFLOW_URI": self.mlflow_uri,
            "BNVIT_CHECKPOINTS": f"file://{self.folder / 'shared'}",
            "BNVIT_LEASE_S": str(LEASE_S),
            "OMP_NUM_THREADS": "1",
            "BNVIT_DEBUG": "",  # whatever a test before it has set
            "BNVIT_LOG_FORMAT": "",
        }

    def node(self, name: str, line: str) -> Node:
        """A new node; its worker is not started."""
        made = Node(self.folder / name, self.environment(), line)
        self.nodes.append(made)
        return made


@contextmanager
def new_stage(has_mlflow_server: bool = True) -> Iterator[Stage]:
    """Servers that run, without nodes; what runs on the nodes is killed at the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(new_data_dir())
        postgres = stack.enter_context(TcpPostgres(folder))
        network = stack.enter_context(Proxy(postgres.port))
        server = None
        if has_mlflow_server:
            (folder / "mlflow").mkdir()
            server = stack.enter_context(MlflowServer(folder / "mlflow", postgres.mlflow_url()))
        stage = Stage(folder, postgres, network, server, [])
        try:
            yield stage
        finally:
            for node in stage.nodes:
                node.kill()


WORKER = "worker --device cpu --threads 1"


def run_line(study: str, trials: int, epochs: int, more: str = "") -> str:
    """The command that creates and looks after a study, training nothing itself."""
    return (
        f"run --model vitbn --dataset {shlex.quote(SUBSET)} --device cpu {MODEL} --study {study} "
        f"--trials {trials} --epochs {epochs} --workers 0 {more}"
    )
