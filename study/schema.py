"""Our tables beside Optuna's: their definition, and how an older store is brought up to date."""

import json

import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Double,
    Executable,
    Integer,
    TableClause,
    Text,
    column,
    func,
    select,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from study.errors import StorageError

VERSION = 2  # of our tables

metadata = sqlalchemy.MetaData(schema="bnvit")

versions = sqlalchemy.Table(
    "version",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("store", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
)

leases = sqlalchemy.Table(
    "lease",
    metadata,
    Column("trial_id", BigInteger, primary_key=True),
    Column("attempt", Integer, nullable=False),  # counts the claims of this trial
    Column("crashes", Integer, nullable=False, default=0),  # in a row, without progress between
    Column("worker", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),  # by the server's clock
    Column("images_seen", BigInteger, nullable=False, default=0),  # progress, for the live table
    Column("images_saved", BigInteger, nullable=False, server_default="0"),  # in a checkpoint
)

workers = sqlalchemy.Table(
    "worker",
    metadata,
    Column("name", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", Text, nullable=False),
    Column("versions", JSONB, nullable=False),
    Column("clock_ahead_s", Double, nullable=False),  # of the server's clock
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


def _attributes(name: str) -> TableClause:
    return table(name, column("trial_id", Integer), column("key", Text), column("value_json", Text))


# Optuna's tables, as far as we fill and read them here; what a trial is told is written in
# `study.worker_storage`. The names are part of its versioned schema.
trials = table(
    "trials",
    column("trial_id", Integer),
    column("study_id", Integer),
    column("number", Integer),
    column("state", sqlalchemy.Enum(TrialState)),
    column("datetime_start", DateTime),
    column("datetime_complete", DateTime),
)
system_attributes = _attributes("trial_system_attributes")
user_attributes = _attributes("trial_user_attributes")
trial_values = table(
    "trial_values",
    column("trial_id", Integer),
    column("objective", Integer),
    column("value", Double),
)


def attribute_told(trial_id: int, key: str, value: object) -> Executable:
    """The statement that sets a user attribute of a trial, also of one that has ended."""
    row = insert(user_attributes).values(trial_id=trial_id, key=key, value_json=json.dumps(value))
    return row.on_conflict_do_update(
        index_elements=["trial_id", "key"], set_={"value_json": row.excluded.value_json}
    )


def prepare(connection: Connection) -> str:
    """Make our tables, or add what an older version lacks; call it under a lock.

    Returns the store's identity, whatever its address. Raises StorageError where a newer version
    of bnvit-study has been here.
    """
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS bnvit"))
    metadata.create_all(connection)
    row = connection.execute(select(versions.c.version, versions.c.store)).first()
    found = None if row is None else int(row.version)
    if row is not None and found == VERSION:
        return str(row.store)
    if found is not None and found > VERSION:
        raise StorageError(
            f"the store was written by a newer bnvit-study (schema {found}, this one knows "
            f"{VERSION}); update bnvit-study on this node"
        )
    # Version 1 had the leases only, and did not say so.
    connection.execute(
        text("ALTER TABLE bnvit.lease ADD COLUMN IF NOT EXISTS images_saved bigint DEFAULT 0")
    )
    made = versions.insert().values(version=VERSION).returning(versions.c.store)
    return str(connection.execute(made).scalar_one())
