"""A connection to a Ray cluster: to the one that is named or runs here, else to one of our own."""

import os
import socket
from contextlib import suppress
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address

from study.errors import ClusterError

PROBE_TIMEOUT_S = 5.0

# What a server of HTTP/2, which Ray's head is, answers to the first frames of a client.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4  # the type of its first frame, in that frame's fourth byte


def connect(given: str | None) -> bool:
    """Connect this process; whether Ray was started for it, and ends with it.

    Raises ClusterError where nothing answers at the address that was `given` or is in RAY_ADDRESS,
    or what does cannot be used.
    """
    named = given or os.environ.get("RAY_ADDRESS")
    try:
        # The one that is named, or that of the latest 'ray start' here.
        address = canonicalize_bootstrap_address(given)  # type: ignore[arg-type]  # None as well
    except ValueError as error:
        raise ClusterError(f"RAY_ADDRESS cannot be read ({error}); write HOST:PORT") from error
    if address is not None and not _answers(address):
        if named is not None:
            raise ClusterError(
                f"no Ray cluster answers at {named}; start one with 'ray start --head', or name "
                "none: then Ray is started for this run"
            )
        address = None  # that of one which has ended
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init(address="local", include_dashboard=False, **options)
        return True
    try:
        ray.init(address=given, **options)
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(_refused(address, str(error.__cause__ or error))) from error
    return False


def _refused(address: str, reason: str) -> str:
    if "InvalidAuthToken" in reason:  # Ray shows its token unasked only to a cluster that it found
        return (
            f"the Ray cluster at {address} asks for its token; set RAY_AUTH_MODE=token, with the "
            "token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
        )
    told = reason.split("\n\n")[0]
    return (
        f"the Ray cluster at {address} cannot be used from here ({told}); run this on one of its "
        "nodes, with the same Ray and Python"
    )


def is_cut_off() -> bool:
    """Whether Ray has given up the node of this process, for which it then places no workers."""
    here = ray.get_runtime_context().get_node_id()
    return not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == here)


def described() -> dict[str, Any]:
    """The cluster's nodes, which of them is this one, and what is free."""
    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    free = ray.available_resources()
    return {
        "nodes": [_node(node) for node in alive],
        "here": next(_node(node) for node in alive if node["NodeID"] == here),
        "free_cpus": free.get("CPU", 0.0),
        "free_gpus": free.get("GPU", 0.0),
    }


def _node(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "address": told["NodeManagerAddress"],
        "hostname": told["NodeManagerHostname"],
        "cpus": told["Resources"].get("CPU", 0.0),
        "gpus": told["Resources"].get("GPU", 0.0),
    }


def _answers(address: str) -> bool:
    """Whether a server of Ray's kind is there: Ray itself tries for two minutes, and loudly."""
    host, _, port = address.rpartition(":")
    place = host.strip("[]"), int(port)
    with suppress(OSError), socket.create_connection(place, PROBE_TIMEOUT_S) as probe:
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return True
        probe.sendall(_GREETING)
        return probe.recv(4)[3:] == bytes([_SETTINGS])
    return False
