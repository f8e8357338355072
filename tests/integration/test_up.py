"""`up` and `down`: the services on one machine, looked at in a browser, broken and repaired."""

import contextlib
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, expect

from study.errors import StorageError
from study.settings import Settings
from study.stack.login import USER
from study.stack.proxy import find_nginx
from study.stack.state import State
from study.stack.updown import find_running, up
from study.storage import open_store
from study.studies import pages
from study.ui import comparison_page
from tests.conftest import new_data_dir
from tests.integration.conftest import CHROMIUM, TIMEOUT_MS, screenshot
from tests.integration.pages import ask
from tests.integration.processes import (
    PROGRAM,
    STUDY,
    connections_of,
    finish,
    run_study,
    show,
    start,
    steady_port,
    until,
)

_clients = count(20)  # addresses that nobody has guessed from

needs_nginx = pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def command(line: str, data_dir: Path) -> tuple[int, str, str]:
    return finish(start(line, data_dir))


def state_of(data_dir: Path) -> State:
    state = State.read(data_dir / "stack")
    assert state is not None
    return state


def processes_of(data_dir: Path) -> list[str]:
    """Command lines of what works on a data folder, whoever started it."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        told = [" ".join(process.info["cmdline"] or []), str(process.info["environ"] or "")]
        if any(str(data_dir) in text for text in told) and process.pid != os.getpid():
            found.append(told[0])
    return found


@pytest.fixture(scope="module")
def port() -> int:
    return steady_port()


@pytest.fixture(scope="module")
def stack(port: int) -> Iterator[Path]:
    """The data folder of a stack that is up, with a study that two workers trained through it."""
    with new_data_dir() as parent:
        folder = parent / "a folder"
        folder.mkdir()
        code, out, err = command(f"up --port {port}", folder)
        assert (code, err) == (0, ""), err
        assert f"http://127.0.0.1:{port}/dashboard" in out
        run_study("--trials 4 --epochs 1 --pruner none --workers 2", folder)
        yield folder
        command("down --yes", folder)


def password(data_dir: Path) -> str:
    return (data_dir / "stack" / "password").read_text().strip()


@needs_nginx
@pytest.mark.parametrize("page", ["/", "/dashboard", "/api/studies", "/ajax-api/2.0/mlflow/x"])
def test_a_page_asks_for_the_password(stack: Path, port: int, page: str) -> None:
    client = f"127.0.0.{next(_clients)}"
    assert ask(port, page, source=client).status == 401
    assert ask(port, page, source=client, password="not the password").status == 401
    assert ask(port, page, source=client, password=password(stack)).status in (200, 404)


@needs_nginx
@needs_browser
def test_the_study_is_seen_behind_the_login(stack: Path, port: int, browser: Browser) -> None:
    context = browser.new_context(
        http_credentials={"username": USER, "password": password(stack)},
        viewport={"width": 1500, "height": 1000},
    )
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)
    failed: list[str] = []
    page.on("response", lambda r: failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.goto(f"http://127.0.0.1:{port}/dashboard")
    page.get_by_text(STUDY).first.click()
    expect(page.get_by_role("heading", name="Intermediate values")).to_be_visible()
    screenshot(page, "up-dashboard")
    with open_store(Settings(data_dir=stack, storage_url=None, mlflow_uri=None)) as store:
        ((_, _, experiment),) = pages(store)
    page.goto(comparison_page(f"http://127.0.0.1:{port}/", [str(experiment)]))
    expect(page.get_by_text("Model metrics")).to_be_visible()
    page.get_by_role("searchbox", name="Search metric charts").fill("train_loss")
    expect(page.get_by_text("train_loss", exact=True).first).to_be_visible()
    screenshot(page, "up-mlflow")
    context.close()
    # A browser asks first without a login. MLflow has no users here; some of it is closed.
    expected = ("401 ", "users/current", "mlflow/assistant/", "mlflow/gateway-proxy")
    assert [one for one in failed if not any(part in one for part in expected)] == []


@needs_nginx
def test_what_is_answered_without_a_login_gives_no_cookie(stack: Path, port: int) -> None:
    for given in (None, "wrong"):
        asked = ask(port, "/healthz", source=f"127.0.0.{next(_clients)}", password=given)
        assert (asked.status, asked.getheader("Set-Cookie")) == (200, None)
    assert state_of(stack).password_at == str(stack / "stack" / "password")


def test_others_cannot_reach_the_pages_past_the_login(stack: Path, port: int) -> None:
    """Nothing but nginx listens on a port, and the sockets lie in a folder closed to others."""
    state = state_of(stack)
    listening = {
        connection.laddr.port
        for running in state.services.values()
        for connection in connections_of(psutil.Process(running.pid), "tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == ({port} if state.password_at else {port, port + 1})
    assert (stack / "stack").stat().st_mode & 0o007 == 0


def test_no_command_line_and_no_log_shows_the_password(stack: Path) -> None:
    secret = password(stack)
    assert not any(secret in line for line in processes_of(stack))
    assert not any(secret in log.read_text() for log in (stack / "logs").iterdir())


def test_up_again_says_where_it_is(stack: Path, port: int) -> None:
    before = state_of(stack)
    code, out, err = command("up", stack)
    assert (code, err) == (0, "")
    assert out.startswith("already up\n")
    assert f":{port}/dashboard" in out
    assert state_of(stack) == before


def test_a_service_that_dies_is_started_again(stack: Path) -> None:
    dead = state_of(stack).services["Optuna Dashboard"]
    os.kill(dead.pid, signal.SIGKILL)
    until(lambda: state_of(stack).services["Optuna Dashboard"] != dead)
    code, out, _ = command("studies", stack)
    assert code == 0
    assert STUDY in out


def test_a_stack_whose_keeper_was_killed_is_repaired_by_up(stack: Path, port: int) -> None:
    half = state_of(stack)
    for leader in (half.keeper, half.services["MLflow"]):  # whose server is a child of it
        os.kill(leader.pid, signal.SIGKILL)
        until(lambda leader=leader: leader.process() is None)  # type: ignore[misc]
    assert half.services["MLflow"].group()
    code, _, err = command(f"up --port {port}", stack)
    assert code == 0, err
    assert "which was left behind" in err
    whole = state_of(stack)
    assert not any(one.group() for one in half.services.values())
    assert all(one.process() is not None for one in whole.services.values())
    assert set(whole.services) == set(half.services)


def test_down_asks_while_workers_are_at_work_and_then_stops_everything(stack: Path) -> None:
    worker = start("worker --device cpu", stack)
    assert worker.stderr is not None
    assert any("no trial to train" in line for line in worker.stderr)
    asked = subprocess.run(
        [*PROGRAM, "down"], env={**os.environ, "BNVIT_DATA_DIR": str(stack)},
        input="n\n", capture_output=True, text=True,
    )  # fmt: skip
    assert asked.returncode == 1
    assert f"bnvit-study worker (process {worker.pid})" in asked.stdout
    assert "nothing was stopped" in asked.stdout
    assert worker.poll() is None
    assert state_of(stack).keeper.process() is not None
    code, out, err = command("down --yes", stack)
    assert code == 0, err
    assert "stopped" in out
    assert finish(worker)[0] == 0
    assert processes_of(stack) == []
    assert command("down", stack)[1] == "nothing is running\n"


def test_the_next_up_has_the_data_and_without_nginx_the_pages_are_this_machine_s(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNVIT_NGINX", "none")
    port = steady_port()
    code, out, err = command(f"up --port {port}", stack)
    assert code == 0, err
    assert "without nginx the pages answer on this machine alone" in out
    assert ask(port, "/dashboard").status == 200
    assert ask(port + 1, "/").status == 200
    with contextlib.closing(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies")) as told:
        assert STUDY in told.read().decode()
    assert ask(port, "/api/studies/1", method="DELETE").status == 500  # its role can only read
    assert show(stack)["outcomes"] == {"complete": 4}
    os.kill(state_of(stack).keeper.pid, signal.SIGKILL)
    code, out, err = command("down", stack)
    assert (code, out.startswith("stopped")) == (0, True), err
    assert processes_of(stack) == []  # Postgres among them


# What cannot be


def test_a_taken_port_is_told_with_who_has_it(made_dir: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        code, out, err = command(f"up --port {port}", made_dir)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"port {port} cannot be used" in err
    assert f"(process {os.getpid()}) has it" in err
    assert processes_of(made_dir) == []


def test_a_folder_that_cannot_be_written_to_is_told(closed_dir: Path) -> None:
    folder = closed_dir / "data"
    with pytest.raises(StorageError, match=f"cannot use {folder}"):
        list(up(Settings(data_dir=folder, storage_url=None, mlflow_uri=None), steady_port()))


def test_an_mlflow_of_somebody_else_is_refused(data_dir: Path) -> None:
    code, out, err = command("up --mlflow http://tracking:5000", data_dir)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'up' starts an MLflow of its own" in err


def test_a_mistyped_nginx_does_not_open_the_pages(
    made_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNVIT_NGINX", "/nowhere/nginx")
    code, out, err = command(f"up --port {steady_port()}", made_dir)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "BNVIT_NGINX is '/nowhere/nginx', which is no program" in err


@pytest.fixture
def foreign_dir(data_dir: Path) -> Path:
    """A data folder that all may write to, with a stack of the one who runs the tests."""
    data_dir.chmod(0o777)
    (data_dir / "stack").mkdir(mode=0o700)
    return data_dir


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a while")
def test_the_stack_of_somebody_else_is_told(
    foreign_dir: Path,
    closed_dir: Path,  # makes this process an ordinary user
) -> None:
    assert closed_dir.parent == foreign_dir
    settings = Settings(data_dir=foreign_dir, storage_url=None, mlflow_uri=None)
    with pytest.raises(StorageError, match="cannot use"):
        list(up(settings, steady_port()))
    with pytest.raises(StorageError, match="cannot use"):
        find_running(settings)


def test_nothing_is_running_in_a_folder_that_nobody_used(data_dir: Path) -> None:
    assert command("down", data_dir) == (0, "nothing is running\n", "")
    assert list(data_dir.iterdir()) == []
