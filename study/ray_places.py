"""How many workers a Ray cluster has room for, what each gets, and whether it reaches the store."""

from typing import TYPE_CHECKING

from sqlalchemy import make_url

from models.errors import InputError
from study.ray_cluster import ClusterNode, View
from study.settings import Settings

if TYPE_CHECKING:
    from study.crew import Berth
    from study.request import Request

_LOOPBACK = ("localhost", "::1", "")  # and 127.…


def room(cluster: View, gpus_per_worker: float | None) -> int:
    """How many workers of one CPU each, and their share of a GPU, could start now; at least 1."""
    fitting = sum(_fitting(node, gpus_per_worker) for node in cluster.nodes)
    free = int(cluster.free_cpus)
    if gpus_per_worker is not None:
        free = min(free, int(cluster.free_gpus / gpus_per_worker + 1e-6))
    return max(min(fitting, free), 1)


def berths_on(cluster: View, request: "Request") -> list["Berth"]:
    """Where the workers run that are asked for; None are: as many as there is room for.

    Raises InputError where the cluster has not the devices.
    """
    from study.crew import Berth

    share = _gpu_share(cluster, request)
    fitting = [(node, count) for node in cluster.nodes if (count := _fitting(node, share))]
    if not fitting:
        raise InputError("the Ray cluster has no CPU for a worker; each needs one")
    workers = request.workers if isinstance(request.workers, int) else room(cluster, share)
    if share is None:
        return [Berth("cpu", threads=1)] * workers
    threads = min(int(node.cpus) // count for node, count in fitting)
    return [Berth("cuda", threads, memory_share=share)] * workers


def check_reach(cluster: View, settings: Settings) -> None:
    """Raise InputError where workers on other machines could reach neither store nor MLflow."""
    if cluster.machines == 1 or (variable := only_here(settings)) is None:
        return
    what, where = {
        "BNVIT_STORAGE_URL": ("store", "a Postgres"),
        "MLFLOW_TRACKING_URI": ("MLflow", "an MLflow server"),
    }[variable]
    raise InputError(
        f"the Ray cluster has {cluster.machines} machines, and the {what} can be reached from this "
        f"one alone; set {variable} to {where} that all of them reach"
    )


def only_here(settings: Settings) -> str | None:
    """The variable that says where store or MLflow are, if that is a place of this machine alone.

    Without an address of its own MLflow is where the store is.
    """
    url = settings.storage_url
    if url is None or _is_loopback(url):
        return "BNVIT_STORAGE_URL"
    uri = settings.mlflow_uri
    if uri is None or settings.is_tracking_off:
        return None
    is_local = uri.startswith("sqlite") or _is_loopback(uri)
    return "MLFLOW_TRACKING_URI" if is_local else None


def _is_loopback(url: str) -> bool:
    host = make_url(url).host or ""
    return host in _LOOPBACK or host.startswith(("127.", "/"))


def _gpu_share(cluster: View, request: "Request") -> float | None:
    """Of a GPU for each worker; None: they train on CPUs."""
    has_gpus = any(node.gpus for node in cluster.nodes)
    if request.gpus_per_worker is not None or request.device == "cuda":
        if not has_gpus:
            option = "--device cuda" if request.gpus_per_worker is None else "--gpus-per-worker"
            raise InputError(f"the Ray cluster has no GPUs; leave out {option}")
        return request.gpus_per_worker or 1.0
    return 1.0 if has_gpus and request.device == "auto" else None


def _fitting(node: ClusterNode, gpus_per_worker: float | None) -> int:
    """How many workers fit on `node` while nobody else is there."""
    if gpus_per_worker is None:
        return int(node.cpus)
    return min(int(node.cpus), int(node.gpus) * int(1 / gpus_per_worker + 1e-6))
