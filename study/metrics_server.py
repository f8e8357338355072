"""Where a worker's metrics are served over HTTP, if that is asked for."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from models.errors import InputError
from study.attempt import Hands
from study.errors import MetricsError
from study.ports import why_taken
from study.settings import MOST_PORT, Settings
from study.words import counted

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

Show = Callable[[Hands], None]
"""Has the metrics of a worker served from now on."""


def check_ports(settings: Settings, workers: int) -> None:
    """Raise InputError or MetricsError where `workers` local workers cannot serve metrics.

    The first takes the port that was asked for, the others those after it.
    """
    first = settings.metrics_port
    if first is None:
        return
    last = first + workers - 1
    if last > MOST_PORT:
        raise InputError(
            f"--metrics-port {first} leaves too few ports for {counted(workers, 'local worker')}, "
            f"which would take {first} to {last}; choose one up to {MOST_PORT + 1 - workers}"
        )
    for port in range(first, last + 1):
        reason = why_taken(port, settings.metrics_host)
        if reason is not None:
            raise _not_served(settings.metrics_host, port, reason)


@contextmanager
def serving(settings: Settings, is_alone: bool) -> Iterator[Show]:
    """Serve metrics for as long as this lasts; without a port nothing is served or imported.

    Until a worker is shown there are none to see. A port that somebody else was faster to take
    raises MetricsError; to a worker that a `run` looks after (`is_alone` false) training matters
    more, and it warns.
    """
    if settings.metrics_port is None:
        yield lambda _: None
        return
    from prometheus_client import CollectorRegistry

    from study.metrics import WorkerCollector

    registry = CollectorRegistry()
    server = _started(settings.metrics_host, settings.metrics_port, registry, is_alone)
    try:
        yield lambda hands: registry.register(WorkerCollector(hands))
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()


def _started(
    host: str, port: int, registry: "CollectorRegistry", is_alone: bool
) -> "WSGIServer | None":
    from prometheus_client import start_http_server

    try:
        return start_http_server(port, host, registry)[0]
    except OSError as error:
        refused = _not_served(host, port, why_taken(port, host) or str(error))
        if is_alone:
            raise refused from error
        log.warning("%s; this worker trains without", refused)
        return None


def _not_served(host: str, port: int, reason: str) -> MetricsError:
    return MetricsError(
        f"metrics cannot be served at port {port} of {host}: {reason}; choose another with "
        "--metrics-port"
    )
