"""The process of a `run` that talks to Ray: places workers and passes on what they say.

It is a process of its own as Ray ends its driver some time after the cluster's head is lost, prints
what it likes on standard output, and takes over signals. Lines of JSON on standard input ask for
something, lines on standard output report; when the former end the workers are stopped.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import IO, Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError

from study import ray_worker
from study.errors import ClusterError
from study.ray_connection import connect, described, is_cut_off

STOP_TIMEOUT_S = 15.0  # for workers to save their trials once the `run` is gone


class Driver:
    """Starts and signals workers as asked, and reports what becomes of them."""

    def __init__(self, reports: IO[str]) -> None:
        self._reports = reports
        self._lock = threading.Lock()
        self._actors: dict[int, Any] = {}
        self._placed: set[int] = set()
        self._followers: list[threading.Thread] = []

    def serve(self, requests: IO[str]) -> None:
        """Connect as the first request says, then do what is asked until requests end."""
        try:
            is_ours = connect(json.loads(requests.readline())["address"])
        except ClusterError as error:
            self._report(error=str(error))
            return
        # Whoever sends these to all processes of a `run` means the `run`, which stops its workers.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._report(is_ours=is_ours, **described())
        cloudpickle.register_pickle_by_value(ray_worker)
        for line in requests:
            self._answer(**json.loads(line))
        self._stop()
        ray.shutdown()

    def _answer(self, key: int, start: dict[str, Any] | None = None, number: int = 0) -> None:
        """Start the worker `key`, or send it a signal; SIGKILL takes its room away at once."""
        if start is not None:
            self._start(key, start)
        elif number != signal.SIGKILL and key in self._placed:
            self._actors[key].send_signal.remote(number)
        elif key in self._actors:
            ray.kill(self._actors[key])

    def _start(self, key: int, asked: dict[str, Any]) -> None:
        needs = {f"node:{asked['node']}": 0.001} if asked["node"] is not None else None
        actor = (
            ray.remote(ray_worker.RemoteWorker)
            .options(
                num_cpus=1,
                num_gpus=asked["gpus"],
                resources=needs,
                max_restarts=0,
                max_concurrency=2,  # a signal is sent while the worker runs
                scheduling_strategy="SPREAD",
            )
            .remote()
        )
        self._actors[key] = actor
        follower = threading.Thread(target=self._follow, args=[key, actor, asked], daemon=True)
        follower.start()
        self._followers.append(follower)

    def _follow(self, key: int, actor: Any, asked: dict[str, Any]) -> None:
        """Report all that becomes of a worker, then take its room away."""
        events = actor.run.options(num_returns="streaming")
        try:
            for event in events.remote(asked["arguments"], asked["environment"], asked["home"]):
                told = ray.get(event)
                if "placed" in told:
                    self._placed.add(key)
                self._report(key=key, **told)
        except RayError as error:
            self._report(key=key, lost=type(error).__name__)
            if is_cut_off():
                os._exit(1)  # an orderly end would wait for Ray
        self._placed.discard(key)
        ray.kill(self._actors.pop(key))

    def _report(self, **told: Any) -> None:
        with self._lock:
            print(json.dumps(told), file=self._reports, flush=True)

    def _stop(self) -> None:
        for key in list(self._actors):
            self._answer(key, number=signal.SIGTERM)
        until_s = time.monotonic() + STOP_TIMEOUT_S
        for follower in self._followers:
            follower.join(max(until_s - time.monotonic(), 0.0))


def _own_output() -> IO[str]:
    """Standard output for the reports alone; what else is printed there is dropped."""
    reports = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  # its number is what counts
        os.dup2(nowhere.fileno(), 1)
    return reports


if __name__ == "__main__":
    Driver(_own_output()).serve(sys.stdin)
