"""What the files in deploy/ name exists in this project: commands, options, variables."""

import re
import shlex
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
import yaml
from mlflow.environment_variables import MLFLOW_TRACKING_TOKEN

from study import entry
from study.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
MANIFEST = DEPLOY / "kubernetes/worker.yaml"
SCRIPT = DEPLOY / "slurm/worker.sbatch"
STOP_S = 10  # within which a worker that is told to leave has left
SECRET_WORDS = ("PASSWORD", "TOKEN", "URL", "URI")


def manifest() -> dict[str, Any]:
    (found,) = yaml.safe_load_all(MANIFEST.read_text())
    return dict(found)


def pod() -> dict[str, Any]:
    return dict(manifest()["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return dict(found)


def words_of_the_script() -> list[str]:
    """The command that the script becomes, up to what its user adds."""
    (line,) = re.findall(r'^exec bnvit-study (.*) "\$@"$', SCRIPT.read_text(), re.MULTILINE)
    return shlex.split(line.replace("${SLURM_CPUS_PER_TASK:-1}", "1"))


def variables() -> set[str]:
    """What the program and the libraries under it read."""
    fields = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    ours = fields | {"MLFLOW_TRACKING_URI", entry.LOG_FORMAT_VARIABLE}
    libpq = {
        option.envvar.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.envvar
    }
    return ours | libpq | {MLFLOW_TRACKING_TOKEN.name, "HOME"}


@pytest.mark.parametrize(
    "words", [words_of_the_script(), container()["args"]], ids=["slurm", "k8s"]
)
def test_the_command_is_one_of_the_programs(words: list[str]) -> None:
    name, *rest = words
    command = typer.main.get_command(entry.app).commands[name]  # type: ignore[attr-defined]
    with command.make_context(name, rest) as context:  # an unknown option would raise
        assert context.params["device"] == "cuda"
        assert not context.params["studies"]


def test_the_variables_are_read_by_somebody() -> None:
    given = {variable["name"] for variable in container()["env"]}
    assert given <= variables()


def test_no_secret_is_in_the_manifest() -> None:
    """They come from a Secret that is made by a command, which stands in a comment."""
    (source,) = container()["envFrom"]
    name = source["secretRef"]["name"]
    assert (
        f"kubectl create secret generic {name} --from-env-file=worker.env" in MANIFEST.read_text()
    )
    for variable in container()["env"]:
        assert not variable["name"].endswith(SECRET_WORDS)


def test_a_pod_has_few_rights() -> None:
    everybody = pod()["securityContext"]
    assert everybody["runAsNonRoot"] is True
    assert everybody["runAsUser"] == everybody["fsGroup"] == 999
    assert everybody["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod()["automountServiceAccountToken"] is False
    own = container()["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}


def test_a_pod_can_write_where_it_must_and_has_time_to_leave() -> None:
    (data_dir,) = [one["value"] for one in container()["env"] if one["name"] == "BNVIT_DATA_DIR"]
    volumes = {volume["name"] for volume in pod()["volumes"] if "emptyDir" in volume}
    mounts = {mount["mountPath"]: mount["name"] for mount in container()["volumeMounts"]}
    assert {data_dir, "/tmp"} <= mounts.keys()
    assert set(mounts.values()) == volumes
    assert pod()["terminationGracePeriodSeconds"] > 2 * STOP_S
    assert container()["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_labels_agree_and_the_example_says_that_it_is_one() -> None:
    spec = manifest()["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert "example" in MANIFEST.read_text().splitlines()[0]
    assert "never run" in MANIFEST.read_text().splitlines()[0]
