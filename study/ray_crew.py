"""Workers that Ray places and that a `run` looks after as it does after local ones."""

import os
from collections.abc import Sequence
from uuid import uuid4

from study.crew import Berth, Crew, Member, Process, arguments_of, environment_of
from study.ray_cluster import Order, RayCluster, RemoteProcess
from study.ray_places import only_here
from study.settings import Settings
from study.storage import Store

_AS_HERE = ("BNVIT_DEBUG", "BNVIT_LOG_FORMAT")
# Secrets that libpq and MLflow's client take from the environment, as in worker.env.
_IF_SET = (
    "PGPASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
)


class RayCrew(Crew):
    """Workers of some studies on the nodes of a Ray cluster, for as long as the context lasts.

    Ray decides where; one for which there is no room waits for some. Workers take their trials from
    the store: what Ray loses is a process, whose trials are open to others at once.
    """

    def __init__(
        self,
        store: Store,
        studies: Sequence[str],
        settings: Settings,
        places: list[Berth],
        cluster: RayCluster,
    ) -> None:
        self._cluster = cluster
        super().__init__(store, studies, settings, places)

    @property
    def has_left(self) -> bool:
        """Whether all workers that were placed have ended in order."""
        waiting = self._waiting()
        return all(one.process in waiting or one.process.poll() == 0 for one in self.members)

    def wait(self) -> None:
        """Let the workers leave by themselves; those that wait for room are not waited for."""
        for process in self._waiting():
            process.kill()
        super().wait()

    def _waiting(self) -> list[RemoteProcess]:
        processes = [member.process for member in self.members]
        return [one for one in processes if isinstance(one, RemoteProcess) and one.is_waiting]

    def _name(self) -> str:
        return f"ray:{os.getpid()}:{uuid4().hex[:6]}"  # which node it will be on is not known yet

    def _told_death(self, member: Member) -> str:
        process = member.process
        if not isinstance(process, RemoteProcess) or process.loss is None:
            return super()._told_death(member)
        if process.node is None:
            return f"Ray could not place a worker ({process.loss}); it is asked again"
        return f"Ray lost a worker on {process.node}; another is placed where there is room"

    def _launch(self, berth: Berth, name: str) -> Process:
        environment = environment_of(self.settings, berth)
        environment |= {name: os.environ.get(name, "") for name in _AS_HERE}
        environment |= {name: os.environ[name] for name in _IF_SET if os.environ.get(name)}
        environment["BNVIT_CA"] = self.settings.ca or ""
        files = {"BNVIT_DATA_DIR": environment.pop("BNVIT_DATA_DIR")}
        return self._cluster.start(
            Order(
                arguments=arguments_of(self.studies, berth, name),
                environment=environment,
                home_environment=files,
                gpus=berth.memory_share if berth.device == "cuda" else 0.0,
                is_bound=only_here(self.settings) is not None,
            )
        )
