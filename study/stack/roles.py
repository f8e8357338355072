"""Postgres' roles: who owns the tables, who may only look."""

import psycopg
from psycopg.sql import SQL, Identifier

READER = "bnvit_reader"  # may look at the store's tables and change nothing
OUR_SCHEMA = "bnvit"
SCHEMAS = ("public", OUR_SCHEMA)  # Optuna's tables and ours


def ensure_role(connection: psycopg.Connection, role: str, password: str | None = None) -> None:
    """Make a role that may log in and nothing else, or set its password.

    Call it as a superuser. The password is hashed here: the server's log never shows it.
    """
    found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    verb = SQL("ALTER") if found else SQL("CREATE")
    connection.execute(
        SQL("{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(verb, Identifier(role))
    )
    if password is not None:
        secret = connection.pgconn.encrypt_password(
            password.encode(), role.encode(), b"scram-sha-256"
        )
        connection.execute(
            SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(role), secret.decode())
        )


def let_read(connection: psycopg.Connection, owner: str, reader: str = READER) -> None:
    """Let `reader` see all tables that `owner` has or will make in the store's schemas.

    `connection` is to the store's database, by its owner or a superuser. The schemas exist.
    """
    words = {"owner": Identifier(owner), "reader": Identifier(reader)}
    for schema in SCHEMAS:
        for statement in (
            "GRANT USAGE ON SCHEMA {schema} TO {reader}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} "
            "GRANT SELECT ON TABLES TO {reader}",
        ):
            connection.execute(SQL(statement).format(schema=Identifier(schema), **words))
    # Said at the outset, so that an attempt to write is told what it is.
    connection.execute(
        SQL("ALTER ROLE {reader} SET default_transaction_read_only = on").format(**words)
    )
