"""The services of the Compose files as local processes: their own commands and environments.

There need be no container engine: a service gets exactly the environment that its file gives it,
and its command, in which hosts, ports and folders of containers are replaced by those of this
machine. What only an engine can do (file systems that are read-only, networks) is not tried.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from study.stack.proxy import NGINX_FOLDERS
from study.system_account import server_account
from tests.integration.processes import steady_port

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
PORTS = {"postgres": [5432], "mlflow": [5000], "dashboard": [8080], "proxy": [8080, 8443]}
FOLDERS = re.compile(r"(?<![\w./-])/(srv/bnvit|data|tmp)(?=[/:]|$)")
HEALTHY_TIMEOUT_S = 60
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


class MissingVariableError(Exception):
    """Compose would refuse to start."""


def read_compose(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """A Compose file of the project with its variables filled in, as Compose does it."""

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [filled(one) for one in value]
        return VARIABLE.sub(lookup, value) if isinstance(value, str) else value

    def lookup(found: re.Match[str]) -> str:
        variable, kind, rest = found.groups()
        if value := given.get(variable):
            return value
        if kind == "?":
            raise MissingVariableError(f"{variable} {rest}")
        return rest or ""

    told: dict[str, Any] = filled(yaml.safe_load((ROOT / name).read_text()))
    return told


def entry_point() -> list[str]:
    """What the image runs."""
    found = re.search(r"^ENTRYPOINT (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    words: list[str] = json.loads(found[1])
    return words


def find_postgres() -> Path | None:
    """Where the programs of a Postgres with TLS are; the wheel's is built without."""
    found = sorted(DEBIAN_POSTGRES.glob("*/bin/postgres"))
    return found[-1].parent if found else None


ALL = ("certify", "postgres", "prepare", "mlflow", "dashboard", "proxy")


class ComposeStack:
    """Services, running, in `folder`; other nodes reach them at `bind`."""

    def __init__(
        self, folder: Path, given: Mapping[str, str], bind: str, names: Sequence[str] = ALL
    ) -> None:
        self.folder = folder
        self.bind = bind
        self.names = names
        inside = [(name, port) for name, own in PORTS.items() for port in own]
        first = steady_port(len(inside))
        self.ports = {there: first + index for index, there in enumerate(inside)}
        self.given = {
            **given,
            "BNVIT_BIND": bind,
            "BNVIT_POSTGRES_PORT": str(self.ports["postgres", 5432]),
            "BNVIT_HTTPS_PORT": str(self.ports["proxy", 8443]),
        }
        self.services = read_compose("docker-compose.yml", self.given)["services"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._account = server_account()
        self._database = folder / "database"
        for part in ("srv/bnvit/tls", "srv/bnvit/proxy", "srv/bnvit/artifacts", "data", "tmp"):
            (folder / part).mkdir(parents=True)
        for name in ("postgres", "nginx"):
            shutil.copytree(ROOT / "deploy" / name, folder / "srv/bnvit" / name)

    def __enter__(self) -> "ComposeStack":
        try:
            for name in self.names:
                self._check_order(name)
                self.bring_up(name)
            for name in self.names:
                if "healthcheck" in self.services[name]:
                    self.await_health(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(list(self.processes.values())):
            process.terminate()
        for process in self.processes.values():
            process.wait(30)

    @property
    def pages(self) -> str:
        """Where people find the pages."""
        return f"http://127.0.0.1:{self.ports['proxy', 8080]}"

    def log(self, name: str) -> Path:
        """What a service has said."""
        return self.folder / f"{name}.log"

    def start(self, name: str, words: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Start a service, with `words` as its command instead of its own, and do not wait."""
        service = self.services[name]
        image_entry = entry_point() if service["image"].startswith("bnvit-study") else []
        own = [
            *service.get("entrypoint", image_entry),
            *([] if words else service.get("command", [])),
        ]
        environment = self._environment(name)
        self.log(name).touch()
        self._give_away(self.log(name))
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [*self._local(name, own), *words], env=environment, cwd=self.folder,
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, **self._identity(name),
            )  # fmt: skip
        self.processes[f"{name}-{process.pid}"] = process
        return process

    def run(self, name: str, words: Sequence[str] = ()) -> str:
        """Run a service to its end and return what it said; it must succeed."""
        process = self.start(name, words)
        code = process.wait(120)
        del self.processes[f"{name}-{process.pid}"]
        said = self.log(name).read_text()
        assert code == 0, said
        return said

    def await_health(self, name: str) -> None:
        """Wait until a service's own health check succeeds."""
        check = self._local(name, self.services[name]["healthcheck"]["test"][1:])
        until_s = time.monotonic() + HEALTHY_TIMEOUT_S
        environment = self._environment(name)
        while subprocess.run(check, env=environment, capture_output=True).returncode:
            assert time.monotonic() < until_s, self.log(name).read_text()
            assert all(process.poll() is None for process in self.processes.values()), self.log(
                name
            ).read_text()
            time.sleep(0.2)

    def postgres_script(
        self, name: str, given: bytes = b""
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run a script of deploy/postgres as in the container of Postgres."""
        programs = find_postgres()
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGHOST": str(self._database),
            "PGPORT": str(self.ports["postgres", 5432]),
            "POSTGRES_PASSWORD": self.given["BNVIT_POSTGRES_PASSWORD"],
            "SCRATCH": str(self.folder / "tmp"),
        }
        script = self.folder / "srv/bnvit/postgres" / name
        return subprocess.run([script], env=environment, input=given, capture_output=True)

    def local_command(self, command: Sequence[str]) -> list[str]:
        """A command with this machine's program for the container's."""
        return [*self._program(command[0]), *command[1:]]

    def base_environment(self) -> dict[str, str]:
        """What any process needs."""
        return {"PATH": f"{os.environ['PATH']}:{NGINX_FOLDERS}", "OMP_NUM_THREADS": "1"}

    def translated(self, name: str, text: str) -> str:
        """A word of a service's file, as it is on this machine."""
        text = self._here(name, text)
        if name == "prepare":  # which writes where the proxy listens
            text = self._here("proxy", text)
        return FOLDERS.sub(lambda found: f"{self.folder}/{found[1]}", text)

    def _here(self, name: str, text: str) -> str:
        """With the hosts and ports of this machine."""
        for (host, port), here in self.ports.items():
            text = re.sub(rf"\b{host}:{port}\b", f"127.0.0.1:{here}", text)
            if host == name:
                listening = self.bind if port == 8443 else "127.0.0.1"
                text = text.replace(f"0.0.0.0:{port}", f"{listening}:{here}")
                text = text.replace(f"localhost:{port}", f"localhost:{here}")
                text = str(here) if text == str(port) else text
        return "127.0.0.1" if text == "0.0.0.0" else text

    def bring_up(self, name: str) -> None:
        """Start a service; wait for what those that depend on it wait for."""
        if name == "postgres":
            self._initialise_database()
        if "completed" in self._wanted_of(name):
            self.run(name)
            for folder in ("srv/bnvit/tls", "srv/bnvit/proxy", "tmp"):
                self._give_away(self.folder / folder)
            return
        self.start(name)
        if "healthy" in self._wanted_of(name):
            self.await_health(name)

    def _wanted_of(self, name: str) -> str:
        """What those that depend on a service wait for."""
        wanted = {
            one["depends_on"][name]["condition"]
            for one in self.services.values()
            if name in one.get("depends_on", {})
        }
        return " ".join(wanted)

    def _check_order(self, name: str) -> None:
        done = {key.rpartition("-")[0] for key in self.processes} | {"certify", "prepare"}
        assert set(self.services[name].get("depends_on", {})) <= done

    def _environment(self, name: str) -> dict[str, str]:
        told = self.services[name].get("environment", {})
        here = {key: self.translated(name, value) for key, value in told.items()}
        return {**self.base_environment(), **here}

    def _local(self, name: str, command: Sequence[str]) -> list[str]:
        """A command with this machine's programs for the containers'."""
        program, *words = (self.translated(name, word) for word in command)
        return [*self._program(program), *words, *self._engine_words(program)]

    def _program(self, name: str) -> list[str]:
        scripts = Path(sysconfig.get_path("scripts"))
        if name == "python":
            return [sys.executable]
        if name in ("postgres", "initdb", "pg_isready"):
            programs = find_postgres()
            assert programs is not None, "tests that need it are skipped without it"
            return [str(programs / name)]
        return [str(scripts / name)] if (scripts / name).exists() else [name]

    def _engine_words(self, program: str) -> list[str]:
        """What an image or an engine provides, and a process must be told."""
        port = str(self.ports["postgres", 5432])
        if program == "pg_isready":
            return ["-p", port]
        if program != "postgres":
            return []
        return [
            "-D", str(self._database), "-p", port,
            "-c", f"unix_socket_directories={self._database}",
            "-c", f"listen_addresses={','.join(dict.fromkeys(['127.0.0.1', self.bind]))}",
            "-c", "fsync=off",
        ]  # fmt: skip

    def _initialise_database(self) -> None:
        """As the image's entry point does on an empty volume."""
        password = self.folder / "password"
        password.write_text(self._environment("postgres")["POSTGRES_PASSWORD"])
        self._give_away(password)
        self._database.mkdir(mode=0o700)
        self._give_away(self._database)
        options = ["-U", "postgres", f"--pwfile={password}", "--auth=scram-sha-256"]
        options += ["--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"]
        subprocess.run(
            [*self._program("initdb"), "-D", str(self._database), *options],
            check=True, cwd="/", capture_output=True, **self._identity("postgres"),
        )  # fmt: skip
        password.unlink()

    def _identity(self, name: str) -> dict[str, Any]:
        """Postgres and nginx' worker do not run as root; in containers nothing does."""
        if name not in ("postgres", "proxy") or os.geteuid() != 0:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def _give_away(self, path: Path) -> None:
        for one in [path, *path.rglob("*")]:
            os.chown(one, self._account.pw_uid, self._account.pw_gid)
