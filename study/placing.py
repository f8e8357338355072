"""Where the workers of a command run, and who starts them there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from objectives.hardware import device_label
from study.crew import Berth, Crew, berths
from study.layout_choice import local_workers
from study.ray_cluster import RayCluster, View, connected
from study.ray_crew import RayCrew
from study.ray_places import berths_on, check_reach, room
from study.request import Request
from study.service import Session
from study.settings import Settings
from study.spares import Spare
from study.storage import Store


@dataclass(frozen=True)
class Placing:
    """Workers to be, on this node or where Ray has room."""

    places: list[Berth]
    where: str  # for people
    crew: Callable[[Store, Sequence[str], Settings, list[Berth]], Crew]


@contextmanager
def cluster_of(requests: Sequence[Request], settings: Settings) -> Iterator[RayCluster | None]:
    """The Ray cluster that is asked for, found good for the purpose; None: none is.

    Raises InputError or ClusterError before anything is created.
    """
    first = requests[0]
    if first.engine == "local":
        yield None
        return
    for request in requests:
        request.check()
    settings.check()
    with connected(first.ray_address) as cluster:
        berths_on(cluster.view, first)
        check_reach(cluster.view, settings)
        yield cluster


def placing(
    session: Session,
    cluster: RayCluster | None,
    spares: list[Spare],
    say: Callable[[str], None],
) -> Placing:
    """Where the workers of `session` and those opened with it run: `spares`, if there are any."""
    request = session.request
    if cluster is None:
        workers = local_workers(session, say)
        places = berths(session.device, workers, request.workers_per_gpu)
        return Placing(places, device_label(session.device), partial(Crew, spares=spares))
    places = berths_on(cluster.view, request)
    share = places[0].memory_share if places[0].device == "cuda" else None
    now = room(cluster.view, share)
    if now < len(places):
        say(f"workers: Ray has room for {now} of {len(places)}; the others start once it has more")
    return Placing(places, _where(cluster.view, places[0]), partial(RayCrew, cluster=cluster))


def _where(cluster: View, place: Berth) -> str:
    whose = "a Ray of this run" if cluster.is_ours else f"Ray's {len(cluster.nodes)} nodes"
    share = f", {place.memory_share:g} GPU" if place.device == "cuda" else ""
    return f"{whose}{share}"
