"""What MLflow and Postgres' library read from the environment, set before there are threads.

A process must not set a variable while another of its threads reads one: glibc's setenv may move
them all, and getenv then reads freed memory, which ended workers with a segmentation fault. MLflow
is imported by a thread beside training, and reads these meanwhile. So the program imports this
module at its start.
"""

import os

VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is ours
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # A client that repeats what timed out makes a second run; we look for the first before.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "PGCONNECT_TIMEOUT": "5",
}
"""Values by name, where the environment has none."""

for _name, _value in VARIABLES.items():
    os.environ.setdefault(_name, _value)
