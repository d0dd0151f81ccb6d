"""The schema of a database: created where there is none, brought up to date where it is older."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect, select
from sqlalchemy.dialects import postgresql, sqlite

from nr_agent.errors import SchemaVersionError, StoreError
from nr_agent.store.database import Database, lock_schema
from nr_agent.store.schema import HEAD, REVISIONS, Base, SchemaInfoRow

VERSION_TABLE = "nr_agent_version"
"""Alembic's table, under a name of our own: a PostgreSQL database may hold other applications' tables."""

_VERSION = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def prepare(database: Database) -> None:
    """Make sure that the database has the schema of this library.

    Raises:
        SchemaVersionError: it was written by a newer library.
        StoreError: it is no episode store.
    """
    with database.write() as connection:
        lock_schema(connection)
        found = read_revision(connection, database)
        if found is None:
            Base.metadata.create_all(connection)
            _VERSION.create(connection)
            connection.execute(_VERSION.insert().values(version_num=HEAD))
            found = HEAD
        if found == HEAD:
            _sign(connection)
            return
    if found and found not in REVISIONS:
        raise SchemaVersionError(
            f"the episode store {database.label} has schema {found}, which is newer than {HEAD} of this nr-agent",
            hint="pip install --upgrade nr-agent, or choose another store",
        )
    _upgrade(database)


def read_revision(connection: Connection, database: Database) -> str | None:
    """The schema's revision; None for an empty database, "" for one from before the first revision.

    Raises:
        StoreError: it is no episode store.
    """
    tables = set(inspect(connection).get_table_names())
    if VERSION_TABLE in tables:
        return connection.execute(select(_VERSION.c.version_num)).scalar() or ""
    own = set(Base.metadata.tables)
    if tables & own or (tables and connection.dialect.name == "sqlite"):
        raise StoreError(
            f"{database.label} is a database, but no episode store: it has the tables {', '.join(sorted(tables)[:5])}",
            hint="choose another store with --store or NR_AGENT_STORE",
        )
    return None


def _upgrade(database: Database) -> None:
    from alembic import command  # noqa: PLC0415 - slow to import, and rarely needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with database.migrate() as connection:
        lock_schema(connection)
        if read_revision(connection, database) == HEAD:
            return  # another process was quicker, and has the copy from before
        if database.path is not None:
            _back_up(database, database.path)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise StoreError(f"upgrading {database.label} broke it; nothing was changed", hint="please report this")
        _sign(connection)


def _back_up(database: Database, path: Path) -> None:
    """Copy the file as it was before the transaction that is open: whole, or not at all, for its owner alone.

    Raises:
        StoreError: it cannot be copied.
    """
    copy = path.with_name(f"{path.name}.before-{HEAD}")
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        partial.replace(copy)
    except sqlite3.Error as error:
        raise database.unusable("copied before its upgrade", error) from error
    finally:
        partial.unlink(missing_ok=True)


def _sign(connection: Connection) -> None:
    """Write who opened the store. A store that cannot be written fails here, at opening, and not in a run."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    values = {"library_version": _library_version(), "opened_at": datetime.now(UTC)}
    statement = insert(SchemaInfoRow).values(id=1, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def _library_version() -> str:
    try:
        return version("nr-agent")
    except PackageNotFoundError:
        return "unknown"
