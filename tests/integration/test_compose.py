"""The team's stack: what its files say, and its services running as they say."""

import http.client
import json
import re
import secrets
import shutil
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
import psycopg
import pytest
import yaml
from sqlalchemy import make_url

from study.cli_options import settings_from
from study.errors import StorageError
from study.settings import postgres_url
from study.stack.certificates import AUTHORITY, ensure_certificate
from study.stack.proxy import find_nginx
from study.storage import probe
from study.tracking import TrackingOutageError, probe_tracking
from tests.conftest import new_data_dir
from tests.integration import pages
from tests.integration.compose import (
    ROOT,
    ComposeStack,
    MissingVariableError,
    find_postgres,
    read_compose,
)
from tests.integration.namespaces import Node, node
from tests.integration.processes import TINY_RUN, until

ROLES = ["POSTGRES", "WORKER", "MLFLOW", "DASHBOARD", "LOGIN"]
SECRETS = [f"BNVIT_{name}_PASSWORD" for name in ROLES]
WORKER_VARIABLES = [
    "BNVIT_STORAGE_URL",
    "PGPASSWORD",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_TOKEN",
    "BNVIT_CA",
]
STUDY = "team"
GUESSES = 5  # in a row that are looked at
TRIALS = 3
EPOCHS = 20  # trials that last until the others have started
RUN = f"{TINY_RUN} --study {STUDY} --trials {TRIALS} --epochs {EPOCHS} --pruner none --workers 0"

runs_the_stack = pytest.mark.skipif(
    find_postgres() is None or find_nginx() is None,
    reason="needs nginx and a Postgres with TLS, Debian's packages nginx and postgresql",
)


def passwords() -> dict[str, str]:
    return {name: secrets.token_hex(24) for name in SECRETS}


@pytest.fixture(scope="module")
def given() -> dict[str, str]:
    return {**passwords(), "BNVIT_LEASE_S": "3"}


# What the files say


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_does_not_start_without_a_password(given: dict[str, str], missing: str) -> None:
    without = {key: value for key, value in given.items() if key != missing}
    with pytest.raises(MissingVariableError, match=f"{missing} is not set; make .env"):
        read_compose("docker-compose.yml", without)


@pytest.mark.parametrize("missing", WORKER_VARIABLES)
def test_a_worker_does_not_start_without_address_and_credentials(missing: str) -> None:
    told = dict.fromkeys(WORKER_VARIABLES, "given")
    with pytest.raises(MissingVariableError, match=f"{missing} is not set; see worker.env"):
        read_compose("docker-compose.worker.yml", {**told, missing: ""})


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.worker.yml"])
def test_every_service_is_confined(given: dict[str, str], name: str) -> None:
    told = {**given, **dict.fromkeys(WORKER_VARIABLES, "given")}
    for service in read_compose(name, told)["services"].values():
        assert service["user"] == "999:999"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] in ("unless-stopped", "on-failure", "no")
        assert re.search(r":\d+\.\d+", service["image"]), "a pinned version"
        words = f"{service.get('command')} {service.get('entrypoint')}"
        assert not any(given[name] in words for name in SECRETS)


def test_only_the_proxy_is_published_and_on_the_loopback(given: dict[str, str]) -> None:
    services = read_compose("docker-compose.yml", given)["services"]
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert published == {"proxy": ["127.0.0.1:8080:8080"]}
    remote = read_compose("docker-compose.remote.yml", {"BNVIT_BIND": "192.0.2.1"})["services"]
    assert {name: one["ports"] for name, one in remote.items()} == {
        "postgres": ["192.0.2.1:5432:5432"],
        "proxy": ["192.0.2.1:8443:8443"],
    }


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here")
@pytest.mark.parametrize("files", [["docker-compose.yml"], ["docker-compose.worker.yml"]])
def test_compose_reads_the_files_as_these_tests_do(
    given: dict[str, str], files: list[str], tmp_path: Path
) -> None:
    told = {**given, **dict.fromkeys(WORKER_VARIABLES, "given"), "PATH": "/usr/bin:/bin"}
    words = [word for file in files for word in ("-f", str(ROOT / file))]
    command = ["docker-compose", *words, "--project-directory", str(tmp_path), "config"]
    done = subprocess.run(command, env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = yaml.safe_load(done.stdout)["services"]
    ours = read_compose(files[0], told)["services"]
    assert set(theirs) == set(ours)
    for name, service in ours.items():
        for key in ("command", "entrypoint", "environment", "profiles", "user", "image"):
            assert theirs[name].get(key) == service.get(key), (name, key)


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here")
def test_compose_refuses_in_one_line(given: dict[str, str], tmp_path: Path) -> None:
    without = {key: value for key, value in given.items() if key != "BNVIT_LOGIN_PASSWORD"}
    words = ["-f", str(ROOT / "docker-compose.yml"), "--project-directory", str(tmp_path)]
    command = ["docker-compose", *words, "config"]
    environment = {**without, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "BNVIT_LOGIN_PASSWORD" in done.stderr
    assert "make .env" in done.stderr


# Its services, running


@dataclass(frozen=True)
class Live:
    """The stack, another node, and what the stack's machine has printed for its workers."""

    stack: ComposeStack
    node: Node
    worker_variables: dict[str, str]


@pytest.fixture(scope="module")
def live(given: dict[str, str]) -> Iterator[Live]:
    with (
        new_data_dir() as folder,
        node() as other,
        ComposeStack(folder, given, other.host) as stack,
    ):
        lines = stack.run("worker-env").splitlines()
        yield Live(stack, other, dict(line.split("=", 1) for line in lines))


_clients = count(2)


def ask(stack: ComposeStack, path: str, **how: str | None) -> http.client.HTTPResponse:
    """Ask the stack's proxy for a page."""
    return pages.ask(stack.ports["proxy", 8080], path, **how)  # type: ignore[arg-type]


def new_client() -> str:
    """An address that nobody has guessed from yet."""
    return f"127.0.0.{next(_clients)}"


@pytest.fixture
def source() -> str:
    return new_client()


PAGES = ["/", "/dashboard", "/api/studies", "/api/2.0/mlflow/experiments/get?experiment_id=0"]


@runs_the_stack
@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_for_the_password(live: Live, page: str, source: str) -> None:
    stack = live.stack
    nobody = ask(stack, page, source=source)
    assert (nobody.status, nobody.getheader("Set-Cookie")) == (401, None)
    assert ask(stack, page, source=source, password="not the password").status == 401
    assert ask(stack, page, source=source, Cookie="bnvit_session=guess").status == 401
    assert ask(stack, page, source=source, Authorization="Bearer guess").status == 401
    right = ask(stack, page, source=source, password=stack.given["BNVIT_LOGIN_PASSWORD"])
    assert right.status == 200
    cookie = str(right.getheader("Set-Cookie"))
    assert "HttpOnly; SameSite=Strict" in cookie
    session = cookie.partition(";")[0]
    for _ in range(3 * GUESSES):  # who is known is not slowed down
        assert ask(stack, page, source=source, Cookie=session).status == 200


@runs_the_stack
def test_what_is_answered_without_a_login_gives_no_cookie(live: Live, source: str) -> None:
    for password in (None, "wrong"):
        asked = ask(live.stack, "/healthz", source=source, password=password)
        assert (asked.status, asked.getheader("Set-Cookie")) == (200, None)


@runs_the_stack
def test_the_sixth_guess_within_a_second_is_refused_even_if_it_is_right(
    live: Live,
) -> None:
    right = live.stack.given["BNVIT_LOGIN_PASSWORD"]
    took_s = 1.0
    while took_s >= 1:  # a stalled machine may let it in
        client = new_client()
        began_s = time.monotonic()
        answers = [
            ask(live.stack, "/", source=client, password=word).status
            for word in [*["wrong"] * GUESSES, right]
        ]
        took_s = time.monotonic() - began_s
    assert answers == [*[401] * GUESSES, 429]
    until(lambda: ask(live.stack, "/", source=client, password=right).status == 200, 5)


@runs_the_stack
def test_pages_of_other_sites_change_nothing(live: Live, source: str) -> None:
    right = live.stack.given["BNVIT_LOGIN_PASSWORD"]
    for origin, status in (("http://evil.example", 403), (live.stack.pages, 200)):
        asked = ask(live.stack, "/", source=source, password=right, Origin=origin)
        assert asked.status == status


@runs_the_stack
def test_postgres_is_refused_without_tls_and_each_role_has_its_own(live: Live) -> None:
    stack, host = live.stack, live.node.host
    authority = stack.folder / "srv/bnvit/tls/ca.crt"

    def connect(role: str, secret: str, database: str, **more: str) -> psycopg.Connection:
        tls = {"sslmode": "verify-full", "sslrootcert": str(authority), **more}
        return psycopg.connect(
            host=host, port=stack.ports["postgres", 5432], user=role, dbname=database,
            password=stack.given[f"BNVIT_{secret}_PASSWORD"], **tls,  # type: ignore[arg-type]
        )  # fmt: skip

    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        connect("bnvit", "WORKER", "optuna", sslmode="disable")
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
        connect("bnvit", "WORKER", "mlflow")
    with pytest.raises(psycopg.OperationalError, match="password"):
        connect("bnvit", "LOGIN", "optuna")
    with connect("bnvit", "WORKER", "optuna") as connection:
        role = connection.execute(
            "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = 'bnvit'"
        ).fetchone()
        assert role == (False,)
        connection.execute("CREATE TABLE public.later (number int)")  # the reader sees it, too
        connection.commit()
    with connect("bnvit_reader", "DASHBOARD", "optuna") as connection:
        assert connection.execute("SELECT count(*) FROM later").fetchone() == (0,)
        connection.execute("SET default_transaction_read_only = off")
        connection.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM studies")


@runs_the_stack
def test_a_worker_elsewhere_talks_to_no_impostor(
    live: Live, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To servers that the authority of its worker.env does not vouch for it says nothing."""
    certificates = data_dir / "tls"
    certificates.mkdir()
    ensure_certificate(certificates, [live.node.host])
    for name in ("PGSSLMODE", "PGSSLROOTCERT", "MLFLOW_TRACKING_SERVER_CERT_PATH"):
        monkeypatch.setenv(name, "")
    for name, value in live.worker_variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BNVIT_DATA_DIR", str(data_dir))
    settings = settings_from()  # as every command reads them
    assert settings.storage_url is not None
    assert settings.mlflow_uri is not None
    probe(postgres_url(settings.storage_url))
    probe_tracking(settings.mlflow_uri)
    monkeypatch.setenv("BNVIT_CA", b64encode((certificates / AUTHORITY).read_bytes()).decode())
    settings_from()
    with pytest.raises(StorageError, match="certificate verify failed"):
        probe(postgres_url(settings.storage_url))
    with pytest.raises(TrackingOutageError, match="CERTIFICATE_VERIFY_FAILED"):
        probe_tracking(settings.mlflow_uri)


@runs_the_stack
def test_a_worker_elsewhere_is_killed_and_others_resume_from_the_shared_checkpoint(
    live: Live,
) -> None:
    """Two workers end a study, one of them on another node, after a third was lost in mid-trial."""
    stack = live.stack
    run = stack.start("cli", RUN.split())
    lost = _start_remote(live, "lost")
    artifacts = stack.folder / "srv/bnvit/artifacts"
    try:
        until(lambda: any(artifacts.glob("**/checkpoints/trial-0/*.pt")), 60)
    finally:
        lost.kill()
        lost.wait()
    remote = _start_remote(live, "remote")
    try:
        stack.start("worker-cpu")
        assert run.wait(120) == 0, stack.log("cli").read_text()
    finally:
        remote.terminate()
        code = remote.wait(30)
    assert code == 0
    trials = _trials(stack, STUDY)
    assert [row["outcome"] for row in trials] == ["complete"] * TRIALS
    assert trials[0]["attempt"] == 2
    assert all(row["mlflow_run_id"] for row in trials)
    assert len({str(row["worker"]) for row in trials}) == 2
    said = stack.log("worker-cpu").read_text() + (stack.folder / "remote/log").read_text()
    assert "goes on from" in said


def _trials(stack: ComposeStack, study: str) -> list[dict[str, object]]:
    """A study's trials as `show --json` tells them."""
    stack.log("cli").unlink(missing_ok=True)
    shown: list[dict[str, object]] = json.loads(stack.run("cli", ["show", study, "--json"]))[
        "trials"
    ]
    return shown


def _start_remote(live: Live, name: str) -> "subprocess.Popen[bytes]":
    """A worker on the other node, by the worker file and what the stack's machine has printed."""
    told = {**live.worker_variables, "BNVIT_LEASE_S": "3"}
    service = read_compose("docker-compose.worker.yml", told)["services"]["worker-cpu"]
    folder = live.stack.folder / name
    folder.mkdir()
    environment = {**service["environment"], "BNVIT_DATA_DIR": str(folder), "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*live.node.prefix, *live.stack.local_command(["bnvit-study", *service["command"]])],
            env={**live.stack.base_environment(), **environment},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


@runs_the_stack
def test_a_delete_through_the_dashboard_fails_and_the_study_survives(
    live: Live, source: str
) -> None:
    stack = live.stack
    right = stack.given["BNVIT_LOGIN_PASSWORD"]
    denied = ask(stack, "/api/studies/1", source=source, method="DELETE", password=right)
    assert denied.status == 403  # at the proxy
    direct = pages.ask(stack.ports["dashboard", 8080], "/api/studies/1", method="DELETE")
    assert direct.status == 500  # and by the role
    assert _trials(stack, STUDY)


@runs_the_stack
def test_a_backup_is_restored_into_an_empty_server(live: Live) -> None:
    backup = live.stack.postgres_script("backup.sh")
    assert (backup.returncode, backup.stderr) == (0, b"")
    with (
        new_data_dir() as folder,
        ComposeStack(
            folder, live.stack.given, "127.0.0.1", ["certify", "postgres", "prepare"]
        ) as empty,
    ):
        nonsense = empty.postgres_script("restore.sh", b"nonsense")
        assert nonsense.returncode == 1
        assert b"is not what backup.sh wrote" in nonsense.stderr
        restored = empty.postgres_script("restore.sh", backup.stdout)
        assert (restored.returncode, restored.stdout) == (0, b"restored\n"), restored.stderr
        assert _trials(empty, STUDY) == _trials(live.stack, STUDY)
        again = empty.postgres_script("restore.sh", backup.stdout)
        assert again.returncode == 1
        assert b"holds 1 studies already" in again.stderr


@runs_the_stack
def test_another_password_ends_the_old_one_and_its_sessions(live: Live, source: str) -> None:
    stack = live.stack
    old, new = stack.given["BNVIT_LOGIN_PASSWORD"], secrets.token_hex(24)
    cookie = str(ask(stack, "/", source=source, password=old).getheader("Set-Cookie"))
    session = cookie.partition(";")[0]
    stack.services["prepare"]["environment"]["BNVIT_LOGIN_PASSWORD"] = new
    stack.bring_up("prepare")
    until(lambda: ask(stack, "/", source=source, Cookie=session).status in (401, 429))
    until(lambda: ask(stack, "/", source=source, password=new).status == 200)
    until(lambda: ask(stack, "/", source=source, password=old).status == 401)


@runs_the_stack
def test_no_secret_can_be_read(live: Live) -> None:
    """In no log, no command line, no answer of `show`, nor in what MLflow shows."""
    stack = live.stack
    values = [stack.given[name] for name in SECRETS]
    stack.log("worker-env").unlink()  # it printed them, as it was asked to
    running = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    said = [log.read_text(errors="replace") for log in stack.folder.glob("**/*log")]
    shown = json.dumps(_trials(stack, STUDY))
    recorded = _everything_in_mlflow(stack)
    for value in values:
        assert not any(value in line for line in running)
        assert not any(value in text for text in said)
        assert value not in shown
        assert value not in recorded


def _everything_in_mlflow(stack: ComposeStack) -> str:
    """All rows of all tables of MLflow's database that carry words."""
    url = make_url(f"postgresql://postgres@127.0.0.1/{'mlflow'}").set(
        port=stack.ports["postgres", 5432], password=stack.given["BNVIT_POSTGRES_PASSWORD"]
    )
    tables = ("params", "tags", "latest_metrics", "experiments", "experiment_tags", "runs")
    with psycopg.connect(
        url.render_as_string(hide_password=False), sslmode="require"
    ) as connection:
        found = [connection.execute(f"SELECT * FROM {t}".encode()).fetchall() for t in tables]
    assert all(found[:2])
    return str(found)
