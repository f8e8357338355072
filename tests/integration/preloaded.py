"""All that a command may import, imported; see `forks`."""

import os
from importlib import import_module

import setproctitle

GIVEN = frozenset(os.environ)
"""The variables of the environment that no module has set while it was imported."""

MODULES = [
    "study.entry",
    "study.conduct",
    "study.joining",
    "study.replay",
    "study.mlflow_tracker",
    "mlflow.store.tracking.sqlalchemy_store",  # MLflow imports it with its first database …
    "torch._dynamo",  # … and torch this with its first optimizer
    "scipy.stats",
]

for name in MODULES:
    import_module(name)

setproctitle.getproctitle()  # finds the title by the environment, which forks change
