"""What a command imports: packages that take long are left to the commands that need them."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from models.switches import ZooSwitches
from study.identity import IDENTITY_KEY, identity_of
from study.mlflow_variables import VARIABLES
from study.storage import Store
from tests.conftest import SUBSET
from tests.study.made import make_study

TRAINING = {"torch", "torchvision", "timm", "mlflow", "pandas", "scipy"}
STORE = {"optuna", "sqlalchemy", "psycopg", "alembic", "numpy"}  # pydantic is part of typer

COMMAND = """
from study.entry import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""
READY_TO_TRAIN = f"""
from pathlib import Path
import study.joining
from models.registry import variant
from objectives.data import load_search_data
from objectives.datasets import dataset
data = load_search_data(dataset({SUBSET!r}, Path()))
variant("vitbn").build(data.shape)
"""
TELL = """
import json, sys
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def imported(code: str, line: str = "", data_dir: Path = Path()) -> set[str]:
    """The packages that are imported once a process has run `code` with the words of `line`."""
    environment = {name: os.environ[name] for name in os.environ.keys() - VARIABLES.keys()}
    done = subprocess.run(
        [sys.executable, "-c", code + TELL, *shlex.split(line)],
        env={**environment, "BNVIT_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_needs_neither_the_store_nor_what_trains() -> None:
    for line in ("--help", "run --help"):
        found = imported(COMMAND, line)
        assert "typer" in found
        assert found & (TRAINING | STORE) == set()


def test_a_thread_that_imports_mlflow_sets_no_variable() -> None:
    """Other threads may read one at that moment, which a process does not survive."""
    code = "import os, study.entry; before = dict(os.environ); from study import mlflow_tracker; "
    assert "mlflow" in imported(f"{code}assert os.environ == before")


def test_a_look_at_the_store_needs_nothing_that_trains(store: Store, shared_dir: Path) -> None:
    name = "test_a_look_at_the_store"
    made = make_study(store, name)
    made.trial()
    known = identity_of(made.study)
    assert known is not None
    of_timm = replace(known, model="timm:vit_tiny_patch16_224_bn", switches=asdict(ZooSwitches()))
    made.study.set_user_attr(IDENTITY_KEY, of_timm.as_dict())
    for line in ("studies", f"show {name}", "status"):
        found = imported(COMMAND, line, shared_dir)
        assert "optuna" in found
        assert found & TRAINING == set()


def test_a_worker_trains_the_articles_models_on_mnist_without_torchvision() -> None:
    found = imported(READY_TO_TRAIN)
    assert found & TRAINING == {"torch"}
    assert "prometheus_client" not in found
