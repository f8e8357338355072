"""What Ray runs on a node for each worker there: it starts the worker's process and watches it.

Ray is sent the content of this file, which imports nothing of ours: the folder where `run` was
called comes first in the path of Ray's processes, and may hold another package called `study`.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray.util


class RemoteWorker:
    """An actor that holds the room of one worker for as long as that runs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], home: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Run `bnvit-study worker` with `arguments`; yields where it is, what it says, its code.

        `home`: the node of the `run`, whose folders its workers there share. On other nodes they
        have those that the node's environment says, or the default ones.
        """
        command = [sys.executable, "-P", "-m", "study.entry", "worker"]
        command += ["--of-parent", str(os.getpid()), *arguments]
        here = [ray.util.get_node_ip_address(), socket.gethostname()]
        is_home = here == [home["address"], home["hostname"]]
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment, **(home["environment"] if is_home else {})},
            cwd=home["folder"] if is_home else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._process = process
        yield {"placed": here[0]}
        assert process.stderr is not None
        for line in process.stderr:
            yield {"line": line}
        yield {"code": process.wait()}

    def send_signal(self, number: int) -> None:
        """Send the worker a signal."""
        if self._process is not None:
            self._process.send_signal(signal.Signals(number))
