"""A Postgres server of our own and its data, reached by a Unix socket only.

Nobody but the owner can connect: the socket's folder is closed to others, and Postgres asks the
kernel who is calling (peer authentication).
"""

import os
import pwd
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from study.data_dir import make_passable, socket_folder
from study.errors import StorageError
from study.postgres_programs import MAJOR_VERSION, START_TIMEOUT_S, PostgresPrograms
from study.system_account import check_reachable, server_account

ROLE = "bnvit"
PORT = 5432  # names the socket; said everywhere, as PGPORT in the environment may say another
DATABASES = ("optuna", "mlflow")
MAX_CONNECTIONS = 300
PROBE_TIMEOUT_S = 5
NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "afs",
    "9p",
    "fuse.sshfs",
    "lustre",
    "glusterfs",
    "gpfs",
    "beegfs",
    "ceph",
)


class PostgresCluster:
    """Databases in `folder` and the server that has them; `prepare` comes first.

    One process at a time may start or stop it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log_file = self.folder / "server.log"

    def exists(self) -> bool:
        """Whether a server was ever made here."""
        return (self.data / "PG_VERSION").is_file()

    def url(self, database: str) -> str:
        """SQLAlchemy URL of one of `DATABASES`; it carries no secret."""
        socket_dir = quote(str(self._socket_dir))
        return f"postgresql+psycopg://{ROLE}@/{database}?host={socket_dir}&port={PORT}"

    def prepare(self) -> None:
        """Make the folder, closed to others. Raises StorageError where no server can be in it."""
        self._account = server_account()
        self._programs = PostgresPrograms(self.folder, self._account, self.log_file)
        make_passable(self.folder.parent)
        _refuse_network_file_system(self.folder.parent)
        if os.geteuid() == 0:
            check_reachable(self.folder, self._account)
        self._make_private(self.folder)

    def start(self) -> None:
        """Start the server unless it answers; the first time, make it and its databases.

        Raises StorageError if it does not start, or if another host or version has the data.
        """
        self._refuse_other_host()
        self._make_private(self._socket_dir)
        if not self.exists():
            self._initialise()
        self._refuse_other_version()
        if not self._answers():
            self._host_file.write_text(socket.gethostname())
            self._remove_stale_pid_file()
            self._configure()
            self._control("start", "-l", str(self.log_file))
        self._create_databases()

    def stop(self) -> None:
        """Stop the server, if there is one, and tidy up after it."""
        if self._answers() or self.has_process():  # a busy machine may be slow to answer
            self._halt()
        self._host_file.unlink(missing_ok=True)
        if self._socket_dir.parent != self.folder:
            with suppress(FileNotFoundError):  # the temporary folder was tidied up
                self._socket_dir.rmdir()

    def has_process(self) -> bool:
        """Whether the server's process is there; it may be busy, starting or stopping."""
        return self._is_ours(_pid_in(self.data / "postmaster.pid"))

    def admit(self, role: str) -> None:
        """Let the owner of the data in as `role`, too, from now on; call it while it runs."""
        names = self.data / "pg_ident.conf"
        part = names.with_name("pg_ident.conf.part")
        part.write_text(_admitted(ROLE, role))
        os.chown(part, self._account.pw_uid, self._account.pw_gid)
        part.rename(names)
        with self._connect("postgres") as connection:
            connection.execute("SELECT pg_reload_conf()")

    def call(self, program: str, *arguments: str) -> None:
        """Run one of Postgres' client programs on this server, as this user; call it while in use.

        Raises StorageError with its reason where it fails.
        """
        reached = ["--host", str(self._socket_dir), "--port", str(PORT), "--username", ROLE]
        self._programs.run_as_user(program, *reached, *arguments)

    @property
    def _host_file(self) -> Path:
        return self.folder / "running-on-host"

    @property
    def _socket_dir(self) -> Path:
        """Beside the data; in the temporary folder where that path is too long for a socket."""
        return socket_folder(self.folder / "socket", f".s.PGSQL.{PORT}")

    def _make_private(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid not in (os.geteuid(), self._account.pw_uid):
            raise StorageError(f"{path} belongs to another account; remove it or move away")
        os.chown(path, self._account.pw_uid, self._account.pw_gid)
        path.chmod(0o700)

    def _refuse_other_host(self) -> None:
        if not self._host_file.exists():
            return
        host = self._host_file.read_text().strip()
        if host != socket.gethostname():
            raise StorageError(
                f"the server in {self.folder} was started on host '{host}'; run there, set "
                f"BNVIT_DATA_DIR to another folder, or, if '{host}' no longer runs it, remove "
                f"{self._host_file}"
            )

    def _refuse_other_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != str(MAJOR_VERSION):
            raise StorageError(
                f"the data in {self.data} were written by Postgres {found}, and this bnvit-study "
                f"brings {MAJOR_VERSION}: with the one that wrote them run 'bnvit-study backup "
                "FOLDER', with this one 'bnvit-study restore FOLDER' into another BNVIT_DATA_DIR"
            )

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there whole."""
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._programs.run(
            "initdb", "-D", str(fresh), "-U", ROLE, "--encoding=UTF8", "--locale=C",
            "--auth-local=peer", "--auth-host=reject", "--no-instructions",
        )  # fmt: skip
        (fresh / "pg_hba.conf").write_text("local all all peer map=owner\n")
        (fresh / "pg_ident.conf").write_text(_admitted(ROLE))
        with (fresh / "postgresql.conf").open("a") as file:
            file.write("include 'bnvit.conf'\n")
        fresh.rename(self.data)

    def _configure(self) -> None:
        socket_dir = str(self._socket_dir).replace('"', '""').replace("'", "''")
        settings = self.data / "bnvit.conf"
        settings.write_text(
            "listen_addresses = ''\n"
            f"unix_socket_directories = '\"{socket_dir}\"'\n"
            f"max_connections = {MAX_CONNECTIONS}\n"
            f"port = {PORT}\n"  # part of the socket's name
        )
        os.chown(settings, self._account.pw_uid, self._account.pw_gid)

    def _answers(self) -> bool:
        try:
            with self._connect("postgres") as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._socket_dir),
            port=PORT,
            user=ROLE,
            dbname=database,
            autocommit=True,
            connect_timeout=PROBE_TIMEOUT_S,
        )

    def _remove_stale_pid_file(self) -> None:
        """Remove a pid file whose process is gone or another program by now.

        Postgres itself would refuse to start for as long as any process has that number. A
        server that is only slow to start or stop is waited for.
        """
        pid_file = self.data / "postmaster.pid"
        until = time.monotonic() + START_TIMEOUT_S
        while self._is_ours(_pid_in(pid_file)):
            if time.monotonic() > until:
                raise StorageError(f"Postgres does not answer; see {self.log_file}")
            time.sleep(0.2)
            if self._answers():
                return
        pid_file.unlink(missing_ok=True)

    def _is_ours(self, pid: int | None) -> bool:
        if pid is None:
            return False
        try:
            return str(self.data) in " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:
            return False

    def _create_databases(self) -> None:
        with self._connect("postgres") as connection:
            rows = connection.execute("SELECT datname FROM pg_database").fetchall()
            for name in set(DATABASES) - {row[0] for row in rows}:
                connection.execute(f"CREATE DATABASE {name}".encode())

    def _halt(self) -> None:
        try:
            self._control("stop", "-m", "fast")
        except StorageError:
            if self.has_process():  # it did not end by itself meanwhile
                raise

    def _control(self, action: str, *arguments: str) -> None:
        if action == "start" and self._answers():
            return
        self._programs.run(
            "pg_ctl", action, "-D", str(self.data), "-w", "-t", str(START_TIMEOUT_S), *arguments
        )


def _admitted(*roles: str) -> str:
    """Lines of the map `owner`: the roles as which this user may connect."""
    client = pwd.getpwuid(os.geteuid()).pw_name
    return "".join(f'owner "{client}" {role}\n' for role in roles)


def _pid_in(pid_file: Path) -> int | None:
    """The first number in a pid file; None if there is no file or nothing in it."""
    try:
        return int(pid_file.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _refuse_network_file_system(folder: Path) -> None:
    mounts = [
        mount
        for mount in psutil.disk_partitions(all=True)
        if folder.resolve().is_relative_to(mount.mountpoint)
    ]
    if not mounts:
        return
    kind = max(mounts, key=lambda mount: len(mount.mountpoint)).fstype.lower()
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        raise StorageError(
            f"{folder} is on a network file system ({kind}), where the embedded Postgres is not "
            "safe; set BNVIT_DATA_DIR to a local folder, or BNVIT_STORAGE_URL to a server"
        )
