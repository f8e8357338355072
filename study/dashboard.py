"""Optuna Dashboard as a process: `python -m study.dashboard HOST PORT`.

Its own command takes the storage URL as an argument, which every user of the machine can read;
here it comes from the environment variable BNVIT_DASHBOARD_STORAGE.
"""

import os
import sys

import optuna_dashboard


def main() -> None:
    """Serve until the process is stopped."""
    host, port = sys.argv[1:]
    optuna_dashboard.run_server(os.environ["BNVIT_DASHBOARD_STORAGE"], host=host, port=int(port))


if __name__ == "__main__":
    main()
