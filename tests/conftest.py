"""Real parts for all tests: a data folder, an embedded Postgres, a small piece of MNIST."""

import gc
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from models.switches import ViTSwitches
from objectives.compiling import CACHE_VARIABLE
from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset
from study.entry import NEW_OBJECTS_PER_COLLECTION

FIXTURES = Path(__file__).parent / "fixtures"
SUBSET = f"idx:{FIXTURES / 'mnist-subset'}"
TINY = ViTSwitches(dim=16, depth=2, heads=2, dim_head=8, mlp_dim=32)
"""A model of the article's family that trains in milliseconds."""

CPU = torch.device("cpu")

gc.set_threshold(NEW_OBJECTS_PER_COLLECTION)  # as the program itself does
torch.set_num_threads(1)  # tiny models: threads would only wait for each other


@contextmanager
def new_data_dir() -> Iterator[Path]:
    """An empty data folder that the server's account may enter also where the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="bnvit-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder of the test's own."""
    with new_data_dir() as folder:
        yield folder


@pytest.fixture(scope="session")
def template_dir() -> Iterator[Path]:
    """A data folder with a server and all tables in it, made once: that takes seconds."""
    from study.mlflow_tracker import MlflowTracker
    from study.settings import Settings
    from study.storage import open_store

    with new_data_dir() as folder:
        settings = Settings(data_dir=folder, storage_url=None, mlflow_uri=None)
        with open_store(settings) as store:
            tracker = MlflowTracker(store.mlflow_url)
            tracker.client.search_experiments()
            tracker.disconnect()
        yield folder


def copy_folder(source: Path, folder: Path) -> None:
    """Copy all that is in `source`, owners and modes included."""
    subprocess.run(["cp", "-a", f"{source}/.", str(folder)], check=True)


@pytest.fixture
def made_dir(template_dir: Path, data_dir: Path) -> Path:
    """A data folder of the test's own, in which nothing need be made."""
    copy_folder(template_dir, data_dir)
    return data_dir


@pytest.fixture
def closed_dir(data_dir: Path) -> Iterator[Path]:
    """A folder that nobody may enter; a test that runs as root is an ordinary user meanwhile."""
    folder = data_dir / "closed"
    folder.mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    yield folder
    os.seteuid(user)
    folder.chmod(0o755)


@pytest.fixture(autouse=True, scope="module")
def imported_modules_are_no_garbage() -> None:
    """They stay; to look for garbage among them, again and again, takes a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def variables_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program sets these for the processes that it starts; no test leaves them to the next."""
    for name in ("BNVIT_DEBUG", "BNVIT_LOG_FORMAT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv(CACHE_VARIABLE, "put back at the end as it was")
    monkeypatch.delenv(CACHE_VARIABLE)


@pytest.fixture(scope="session")
def subset() -> SearchData:
    """917 training and 83 validation images of MNIST."""
    return load_search_data(dataset(SUBSET, Path()))
