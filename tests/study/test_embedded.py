"""The embedded server's life-cycle, with real processes."""

import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import psycopg
import pytest

from study import postgres_programs
from study.embedded import EmbeddedPostgres
from study.errors import StorageError
from study.system_account import check_reachable, may_use
from tests.integration.processes import connections_of, until

HOLD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from study.embedded import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])) as server:
    print("ready", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def folder(data_dir: Path) -> Path:
    return data_dir / "postgres"


@pytest.fixture
def made(made_dir: Path) -> Path:
    """The folder of a server that ran before, and was stopped."""
    return made_dir / "postgres"


def hold(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    """A process that uses the server for so long."""
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def servers(folder: Path) -> list[psutil.Process]:
    """Live postgres processes that were started on `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        is_zombie = process.info["status"] == psutil.STATUS_ZOMBIE
        if not is_zombie and str(folder / "data") in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def answers(server: EmbeddedPostgres) -> bool:
    url = server.url("optuna").replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def test_it_starts_serves_and_stops(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server:
        assert answers(server)
        assert (folder / "running-on-host").read_text() == socket.gethostname()
    assert not servers(folder)
    assert not (folder / "running-on-host").exists()
    with EmbeddedPostgres(folder) as server:
        assert answers(server)


def test_four_processes_at_once_on_an_empty_folder_share_one_server(folder: Path) -> None:
    holders = [hold(folder, 1) for _ in range(4)]
    outputs = [holder.communicate(timeout=120)[0] for holder in holders]
    assert outputs == ["ready\n"] * 4
    assert [holder.returncode for holder in holders] == [0] * 4
    assert not servers(folder)


def test_the_last_one_out_stops_it(made: Path) -> None:
    with EmbeddedPostgres(made) as server:
        holder = hold(made, 0)
        assert holder.communicate(timeout=60)[0] == "ready\n"
        assert answers(server)
    assert not servers(made)


def test_a_killed_user_does_no_harm_and_keeps_nothing_alive_for_ever(made: Path) -> None:
    holder = hold(made, 600)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    holder.kill()
    holder.communicate()
    assert servers(made)  # nobody was left to stop it
    with EmbeddedPostgres(made) as server:
        assert answers(server)
    assert not servers(made)


def test_a_killed_server_is_started_again_though_its_pid_lives_on_in_another_program(
    made: Path,
) -> None:
    holder = hold(made, 600)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    holder.kill()
    holder.communicate()
    pid_file = made / "data" / "postmaster.pid"
    postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
    postmaster.send_signal(signal.SIGQUIT)  # an immediate end, as after a crash
    until(lambda: not servers(made))
    lines = pid_file.read_text().splitlines() if pid_file.exists() else ["", str(made / "data")]
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with EmbeddedPostgres(made) as server:
        assert answers(server)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_local_user_cannot_connect(made: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    with EmbeddedPostgres(made) as server:
        attempt = subprocess.run(
            [
                "/usr/bin/python3",
                "-c",
                "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])",
                str(made / "socket" / ".s.PGSQL.5432"),
            ],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
        )
        assert "PermissionError" in attempt.stderr
        # Were the folder open, Postgres would still ask the kernel who is calling.
        with pytest.raises(psycopg.OperationalError, match=r"[Pp]eer authentication failed"):
            psycopg.connect(server.url("optuna").replace("+psycopg", "").replace("bnvit@", "x@"))


def test_a_server_that_is_slow_to_answer_is_stopped_too(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedPostgres(made) as server:
        monkeypatch.setattr(server, "_answers", lambda: False)
    assert servers(made) == []


def test_it_listens_on_no_network_address(made: Path) -> None:
    with EmbeddedPostgres(made):
        (postmaster, *_) = servers(made)
        listening = list(connections_of(postmaster, "inet"))
    assert listening == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account")
def test_root_copies_programs_that_the_account_may_not_use(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_programs, "may_use", lambda *_: False)
    with EmbeddedPostgres(folder) as server:
        assert answers(server)
        (postmaster, *_) = servers(folder)
        assert Path(postmaster.exe()).is_relative_to(folder)


def test_an_account_may_use_a_tree_whose_files_and_parents_are_open(data_dir: Path) -> None:
    tree = data_dir / "tree"
    program = tree / "bin" / "program"
    program.parent.mkdir(parents=True)
    program.touch()
    nobody = pwd.getpwnam("nobody")
    for path, open_mode, closed_mode in (
        (program, 0o755, 0o744),
        (program, 0o644, 0o640),
        (program.parent, 0o755, 0o750),
        (data_dir, 0o755, 0o700),
    ):
        path.chmod(open_mode)
        assert may_use(nobody, tree)
        path.chmod(closed_mode)
        assert not may_use(nobody, tree)
        path.chmod(open_mode)


def test_another_host_is_refused_while_it_may_run_the_server(made: Path) -> None:
    with EmbeddedPostgres(made):
        pass
    (made / "running-on-host").write_text("elsewhere")
    with (
        pytest.raises(StorageError, match="was started on host 'elsewhere'") as refused,
        EmbeddedPostgres(made),
    ):
        pass
    assert str(made / "running-on-host") in str(refused.value)


def test_a_network_file_system_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = SimpleNamespace(mountpoint="/", fstype="nfs4")
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [mount])
    with (
        pytest.raises(StorageError, match=r"network file system \(nfs4\)"),
        EmbeddedPostgres(folder),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_one_clear_error(data_dir: Path) -> None:
    (data_dir / "file").touch()
    with (
        pytest.raises(StorageError, match="BNVIT_DATA_DIR"),
        EmbeddedPostgres(data_dir / "file" / "postgres"),
    ):
        pass


def test_a_long_path_gets_a_socket_elsewhere(data_dir: Path) -> None:
    deep = data_dir / ("x" * 60) / ("y" * 60) / "postgres"
    with EmbeddedPostgres(deep) as server:
        assert answers(server)
        assert server._socket_dir.is_dir()
    assert not server._socket_dir.exists()


def test_a_path_with_spaces_works(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir / "Application Support" / "postgres") as server:
        assert answers(server)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_umask_does_not_lock_the_server_out(data_dir: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with EmbeddedPostgres(data_dir / "made" / "for" / "it" / "postgres") as server:
            assert answers(server)
    finally:
        os.umask(before)


def test_a_closed_parent_folder_is_named(data_dir: Path) -> None:
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(StorageError, match=f"may not enter {closed}"):
        check_reachable(closed / "postgres", pwd.getpwnam("nobody"))
