"""Connections to Postgres that give up on a silent server, whatever the network does with it."""

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from psycopg.abc import PQGen
from sqlalchemy import Engine, event

from models.errors import first_line

CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 15  # of one statement; no statement of ours waits for a lock for so long
HURRIED_ANSWER_S = 2  # the same when the process is to leave
POOL_SIZE = 2
# Else what Optuna makes would lie in a schema that is called as the user is: ours.
SEARCH_PATH = "-c search_path=public"

_hurried = threading.Event()
_waiting: "set[BoundedConnection]" = set()

_Answer = TypeVar("_Answer")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose every statement is answered within ANSWER_TIMEOUT_S, or it is closed.

    Packets that are silently dropped, a frozen server or a half-open connection through a
    firewall would otherwise block for up to two hours: libpq has no such limit of its own.
    """

    def wait(
        self, gen: PQGen[_Answer], interval: float = 0.1, timeout: float | None = None
    ) -> _Answer:
        """Wait for an answer; raises OperationalError, and closes, if none comes."""
        limit_s = HURRIED_ANSWER_S if _hurried.is_set() else ANSWER_TIMEOUT_S
        _waiting.add(self)
        try:
            return super().wait(gen, interval, timeout or limit_s)
        except psycopg.errors._WaitTimeout as error:
            self.close()
            raise psycopg.OperationalError(
                f"no answer from the server within {limit_s} s"
            ) from error
        finally:
            _waiting.discard(self)


def hurry() -> None:
    """From now on this process waits only briefly for an answer: it has been told to leave.

    Takes HURRIED_ANSWER_S: what then still waits for an answer has its connection ended.
    """
    before = set(_waiting)
    _hurried.set()
    time.sleep(HURRIED_ANSWER_S)
    for connection in before & _waiting:
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(connection.fileno())) as end,
        ):
            end.shutdown(socket.SHUT_RDWR)


def engine_options(idle_s: float) -> dict[str, Any]:
    """Of an engine with few connections, each tried before it is used again.

    The server ends a transaction in which nothing happens for `idle_s`: its process is frozen.
    """
    return {
        "pool_size": POOL_SIZE,
        "max_overflow": POOL_SIZE,
        "pool_pre_ping": True,  # a dropped connection is replaced, not an error
        "connect_args": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "bnvit-study",
            "options": f"-c idle_in_transaction_session_timeout={round(idle_s * 1000)}"
            f" {SEARCH_PATH}"
            # Of a node that is gone without a word the server notices, and frees its locks.
            " -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
        },
    }


def bounded(engine: Engine) -> Engine:
    """`engine`, making from now on connections that give up on a silent server."""

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: object,  # noqa: ARG001  # SQLAlchemy gives it by name
        connection_record: object,  # noqa: ARG001
        cargs: list[Any],
        cparams: dict[str, Any],
    ) -> BoundedConnection:
        if _hurried.is_set():
            cparams = {**cparams, "connect_timeout": HURRIED_ANSWER_S}
        return BoundedConnection.connect(*cargs, **cparams)

    engine.dispose()  # those made before
    return engine


def reason_of(error: BaseException) -> str:
    """What the driver said, in one line, below what Optuna and SQLAlchemy make of it."""
    while (below := _below(error)) is not None:
        error = below
    return first_line(str(error))


def is_outage(error: BaseException | None) -> bool:
    """Whether `error` says that the server is away, rather than that something is wrong.

    Optuna wraps what its database raises, SQLAlchemy what psycopg raises.
    """
    while error is not None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return True
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):  # after a failover
            return True
        if isinstance(error, sqlalchemy.exc.TimeoutError):  # all connections of the pool hang
            return True
        if isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated:
            return True  # as by a server that ends the transaction of a frozen process
        error = _below(error)
    return False


def _below(error: BaseException) -> BaseException | None:
    """What an error was made of.

    Where a statement of Optuna's fails it asks in another way, in the same transaction: if that is
    broken the second error hides the first, which is only its context.
    """
    if isinstance(error, sqlalchemy.exc.PendingRollbackError):
        return error.__context__
    return error.__cause__
