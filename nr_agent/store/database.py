"""The database behind a store: where it is, how it is connected to, and whether it can be used."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, Pool, QueuePool, StaticPool, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from nr_agent.errors import MissingExtraError, StoreError

Role = Literal["write", "read", "migrate"]

_log = logging.getLogger(__name__)
_HEADER = b"SQLite format 3\0"
_WAL_ATTEMPTS = 50
_SQLITE_AT_FAULT = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
# Connection, read-only, rollback, privilege, resources, locks, operator, system, damage; others are OperationalErrors.
_POSTGRESQL_AT_FAULT = ("08", "25006", "40", "42501", "53", "55", "57", "58", "XX")
# What was written does not fit into a type, breaks a rule, or is too large for an index.
_POSTGRESQL_WRITTEN = ("22", "23", "54")
_REMEDIES = {
    "locked": "another process is writing: wait for it, or give it a store of its own",
    "lock timeout": "another session holds a lock on the tables: end it, or wait for it",
    "full": "make room on the disk",
    "No space left": "make room on the server's disk",
    "read-only transaction": "the server takes no writes: is it a standby? name the primary",
    "malformed": "the file is damaged: restore a copy, or choose another store with --store or NR_AGENT_STORE",
}
_HINT = "check the path and its permissions, or choose another store with --store or NR_AGENT_STORE"


class Database:
    """A SQLite file, SQLite in memory, or PostgreSQL.

    Engines are made when they are needed, anew in every process: they do not survive a fork.

    Args:
        location: a path or an SQLAlchemy URL.
        busy_timeout: seconds to wait for another writer.

    Raises:
        StoreError: the URL cannot be read, or names a database that is not supported.
        MissingExtraError: PostgreSQL without its driver.
    """

    def __init__(self, location: str | Path, *, busy_timeout: float = 30.0) -> None:
        self.url = _read_url(location)
        self.busy_timeout = busy_timeout
        self.dialect = self.url.get_backend_name()
        if self.dialect not in ("sqlite", "postgresql"):
            raise StoreError(f"a store cannot be kept in {self.dialect}", hint="use a SQLite path or postgresql://...")
        self.in_memory = self.dialect == "sqlite" and self.url.database in (None, "", ":memory:")
        self._engines: dict[Role, Engine] = {}
        self._pid = os.getpid()
        self._make_lock = threading.Lock()
        # All threads share the one connection of a database in memory, so they take turns.
        self._turn = threading.RLock() if self.in_memory else None

    @property
    def label(self) -> str:
        """How the database is called in messages: the path, or the URL without its password."""
        return str(self.path) if self.path is not None else self.url.render_as_string(hide_password=True)

    @property
    def path(self) -> Path | None:
        """The file, where there is one with a plain name."""
        name = self.url.database
        if self.dialect != "sqlite" or self.in_memory or name is None or name.startswith("file:"):
            return None
        return Path(name)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection in a transaction that may write; committed at the end of the block."""
        with self._turn or nullcontext(), self._engine("write").begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that reads; one snapshot for the whole block."""
        with self._turn or nullcontext(), self._engine("read").connect() as connection:
            if self.dialect == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def migrate(self) -> Iterator[Connection]:
        """A connection in a transaction, without the foreign keys: rebuilding a table would cascade."""
        with self._turn or nullcontext(), self._engine("migrate").begin() as connection:
            yield connection

    def make_place(self, *, create: bool) -> None:
        """Make the folder and an empty file that only its owner may read, if they are missing.

        Raises:
            StoreError: they cannot be made, there is no store and none is to be created, or it is no database.
        """
        path = self.path
        if path is None:
            return
        if path.is_file():
            self._check_header(path)
            return
        if not create:
            raise StoreError(f"there is no episode store at {path}", hint="solve a problem first, or name another one")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
            path.touch(mode=0o600)
        except OSError as error:
            raise self.unusable("opened", error) from error

    def _check_header(self, path: Path) -> None:
        # SQLite takes a file of a few bytes for an empty database, and writes over it.
        try:
            with path.open("rb") as file:
                first = file.read(len(_HEADER))
        except OSError as error:
            raise self.unusable("opened", error) from error
        if first not in (b"", _HEADER):
            raise self.unusable("opened", ValueError("file is not a database"))

    def unusable(self, what: str, error: BaseException) -> StoreError:
        """The error to raise when the database could not be opened, read or written."""
        reason = reason_of(error)
        hint = next((remedy for sign, remedy in _REMEDIES.items() if sign in reason), _HINT)
        return StoreError(f"the episode store {self.label} cannot be {what}: {reason}", hint=hint)

    def dispose(self) -> None:
        """Close all connections. The database can be used again; one in memory is gone."""
        self._renew_after_fork()
        with self._make_lock:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()

    def _engine(self, role: Role) -> Engine:
        self._renew_after_fork()
        shared: Role = "write" if self.in_memory or (role == "read" and self.dialect != "sqlite") else role
        with self._make_lock:
            if shared not in self._engines:
                self._engines[shared] = self._make_engine(shared)
            return self._engines[shared]

    def _make_engine(self, role: Role) -> Engine:
        if self.dialect == "postgresql":
            engine = create_engine(self.url, pool_pre_ping=True)
            if role == "write":
                event.listen(engine, "connect", self._limit_waiting)
            return engine
        pool: type[Pool] = StaticPool if self.in_memory else QueuePool
        most = 0 if role == "write" else -1
        limits: dict[str, Any] = {} if self.in_memory else {"pool_size": 1, "max_overflow": most}
        arguments = {"check_same_thread": False, "timeout": self.busy_timeout}
        engine = create_engine(self.url, poolclass=pool, connect_args=arguments, **limits)

        @event.listens_for(engine, "connect")
        def connect(connection: Any, record: object) -> None:
            self._set_up(connection, role)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A transaction that begins as a reader and then wants to write may be refused at once.
            connection.exec_driver_sql("BEGIN" if role == "read" else "BEGIN IMMEDIATE")

        return engine

    def _limit_waiting(self, connection: Any, record: object) -> None:
        """Somebody else's lock is waited for as long as on SQLite, and not for ever."""
        # 0 would be for ever.
        connection.execute(f"SET lock_timeout = {max(1, round(self.busy_timeout * 1000))}")
        connection.commit()

    def _set_up(self, connection: Any, role: Role) -> None:
        connection.isolation_level = None  # transactions are begun by the listener, not by the driver
        connection.execute(f"PRAGMA foreign_keys = {'OFF' if role == 'migrate' else 'ON'}")
        if role == "read":
            connection.execute("PRAGMA query_only = ON")
            return
        connection.execute("PRAGMA synchronous = NORMAL")
        if not self.in_memory:
            self._use_wal(connection)

    def _use_wal(self, connection: Any) -> None:
        # Changing the mode does not wait for other connections as other statements do.
        for attempt in range(_WAL_ATTEMPTS):
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except Exception as error:
                if attempt == _WAL_ATTEMPTS - 1 or "locked" not in str(error):
                    raise
                time.sleep(0.05)
                continue
            if mode != "wal":
                _log.warning("%s does not allow write-ahead logging (%s): one process at a time", self.label, mode)
            return

    def _renew_after_fork(self) -> None:
        if self._pid == os.getpid():
            return
        # The parent goes on using these connections: let go of them without closing anything.
        for engine in self._engines.values():
            engine.dispose(close=False)
        self._engines, self._pid = {}, os.getpid()
        self._make_lock = threading.Lock()
        self._turn = threading.RLock() if self.in_memory else None


def is_transient(error: BaseException) -> bool:
    """Whether the database, and not what was written, is at fault: locked, full, away, read-only, damaged."""
    if not isinstance(error, DBAPIError):
        return False
    # Only Python's own driver has the one, and only psycopg the other.
    name, state = (str(getattr(error.orig, code, None) or "") for code in ("sqlite_errorname", "sqlstate"))
    if state.startswith(_POSTGRESQL_WRITTEN):  # psycopg calls some of these operational
        return False
    at_fault = name.startswith(_SQLITE_AT_FAULT) or state.startswith(_POSTGRESQL_AT_FAULT)
    return at_fault or isinstance(error, OperationalError) or error.connection_invalidated


def reason_of(error: BaseException) -> str:
    """An error in one line, without the SQL."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines()
    return lines[0].strip() if lines else type(cause).__name__


def lock_schema(connection: Connection) -> None:
    """Let one process at a time create or change the tables. SQLite's transaction does that by itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(6021934)"))


def _read_url(location: str | Path) -> URL:
    if isinstance(location, str) and location == ":memory:":
        return URL.create("sqlite")
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(Path(location).expanduser().absolute()))
    try:
        url = make_url(location)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        if str(error.name).startswith("psycopg"):
            raise MissingExtraError("psycopg", extra="postgres") from error
        raise StoreError(f"the store's URL needs {error.name}", hint="use a SQLite path or postgresql://...") from error
    except (ArgumentError, SQLAlchemyError) as error:
        raise StoreError(
            f"the store's URL cannot be read: {reason_of(error)}",
            hint="give a path, sqlite:///path, or postgresql://user@host/database",
        ) from error
    return url
