"""Optuna Dashboard as a process: `python -m study.dashboard HOST:PORT`, or `unix:/SOCKET`.

Its own command takes the storage URL as an argument, which every user of the machine can read,
and serves one request at a time. Here the URL comes from the environment variable
BNVIT_DASHBOARD_STORAGE. BNVIT_DASHBOARD_FILES names the folder of the files that were attached to
studies.
"""

import os
import sys
from pathlib import Path

import optuna_dashboard
import waitress

from study.attachments import file_store

THREADS = 8


def main() -> None:
    """Serve until the process is stopped."""
    kind, _, socket = sys.argv[1].partition("unix:")
    where = {"listen": kind} if kind else {"unix_socket": socket, "unix_socket_perms": "666"}
    application = optuna_dashboard.wsgi(
        os.environ["BNVIT_DASHBOARD_STORAGE"],
        artifact_store=file_store(Path(os.environ["BNVIT_DASHBOARD_FILES"])),
    )
    waitress.serve(application, threads=THREADS, ident=None, **where)


if __name__ == "__main__":
    main()
