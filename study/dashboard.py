"""Optuna Dashboard as a process: `python -m study.dashboard HOST PORT`.

Its own command takes the storage URL as an argument, which every user of the machine can read;
here it comes from the environment variable BNVIT_DASHBOARD_STORAGE. BNVIT_DASHBOARD_FILES names
the folder of the files that were attached to studies.
"""

import os
import sys
from pathlib import Path

import optuna_dashboard

from study.attachments import file_store


def main() -> None:
    """Serve until the process is stopped."""
    host, port = sys.argv[1:]
    files = file_store(Path(os.environ["BNVIT_DASHBOARD_FILES"]))
    optuna_dashboard.run_server(
        os.environ["BNVIT_DASHBOARD_STORAGE"], host=host, port=int(port), artifact_store=files
    )


if __name__ == "__main__":
    main()
