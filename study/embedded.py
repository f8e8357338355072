"""The embedded Postgres: a server in the data folder that processes share.

Its life-cycle: each process that uses it holds a shared lock on `users.lock`; the first starts
the server, the last one out stops it. Starting and stopping happen under `startup.lock`. A server
left running by killed processes is found alive by the next one, and stopped by the last one then.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from study.data_dir import unusable
from study.postgres_cluster import PostgresCluster
from study.stop import uninterrupted


class EmbeddedPostgres(PostgresCluster):
    """A server in `folder` for as long as the context lasts; shared with other processes.

    Raises StorageError where the folder cannot be used or the server does not start.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._users: int | None = None  # file descriptor that holds the shared lock

    def __enter__(self) -> Self:
        try:
            self.prepare()
            with self._startup_lock():
                self._users = _lock(self.folder / "users.lock", fcntl.LOCK_SH)
                self.start()
        except OSError as error:
            self._release()
            raise unusable(self.folder, error) from error
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with uninterrupted(), self._startup_lock():
            self._release()
            if self._is_unused():
                self.stop()

    def revive(self) -> bool:
        """Start the server again if it has ended; returns whether it had. Call it while in use."""
        if self.has_process():
            return False
        with self._startup_lock():
            self.start()
        return True

    def stop_if_unused(self) -> bool:
        """Stop a server that killed processes have left behind; returns whether there was one."""
        if not self.exists() or not self.has_process():
            return False
        with self:
            pass
        return not self.has_process()

    def users(self) -> list[psutil.Process]:
        """This user's processes that have the server in use, this one and others."""
        lock = os.path.realpath(self.folder / "users.lock")  # as the system tells open files
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(file.path == lock for file in process.open_files()):
                    found.append(process)
        return found

    @contextmanager
    def _startup_lock(self) -> Iterator[None]:
        descriptor = _lock(self.folder / "startup.lock", fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(descriptor)

    def _release(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def _is_unused(self) -> bool:
        try:
            os.close(_lock(self.folder / "users.lock", fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True


def _lock(path: Path, operation: int) -> int:
    """Open `path` and lock it; the descriptor holds the lock until it is closed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
