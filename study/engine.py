"""What places the workers of a command: this node alone, or a Ray cluster."""

import importlib.util
import re
from typing import TYPE_CHECKING, Literal, get_args

from models.errors import InputError

if TYPE_CHECKING:
    from study.request import Request

Engine = Literal["local", "ray"]

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):[0-9]{1,5}|local")


def check_engine(request: "Request") -> None:
    """Raise InputError for options of an engine that do not go together, or if Ray is missing."""
    if request.engine not in get_args(Engine):
        known = ", ".join(get_args(Engine))
        raise InputError(f"unknown engine '{request.engine}'; known: {known}")
    if request.engine == "local":
        _check_local(request)
    else:
        _check_ray(request)


def _check_local(request: "Request") -> None:
    for option, value in (
        ("--ray-address", request.ray_address),
        ("--gpus-per-worker", request.gpus_per_worker),
    ):
        if value is not None:
            raise InputError(f"{option} is about Ray; add --engine ray, or leave it out")


def _check_ray(request: "Request") -> None:
    if request.ray_address is not None and not _ADDRESS.fullmatch(request.ray_address):
        raise InputError(
            f"--ray-address {request.ray_address} must be HOST:PORT, as 'ray start --head' tells "
            "it, or local; a Ray Client (ray://) cannot be used: run on a node of the cluster"
        )
    if request.workers_per_gpu != 1:
        share = 1 / request.workers_per_gpu
        raise InputError(
            f"--workers-per-gpu is for --engine local; with Ray say --gpus-per-worker {share:g}"
        )
    if request.workers == "auto":
        raise InputError("--workers auto measures this node; with --engine ray give a number")
    if request.workers == 0:
        raise InputError("--workers 0 places none; leave out --engine ray")
    _check_devices(request)
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed; install it with: pip install 'bnvit-study[ray]'")


def _check_devices(request: "Request") -> None:
    share = request.gpus_per_worker
    if share is not None and not 0 < share <= 1:
        raise InputError(f"--gpus-per-worker {share:g} must be above 0 and at most 1")
    if share is not None and request.device == "cpu":
        raise InputError("--gpus-per-worker is about GPUs; leave it out, or --device cpu")
    if request.device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"--device {request.device}: with --engine ray it is auto, cpu or cuda; "
            "which GPU a worker gets is Ray's choice"
        )
