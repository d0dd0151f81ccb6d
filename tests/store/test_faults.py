"""Databases that fail while they are written to, on SQLite and on a real PostgreSQL: nothing is lost.

Which test is about which fault (the others are in the public suite, on both databases):

| fault | SQLite | PostgreSQL |
| --- | --- | --- |
| SIGKILL at every stage | store_suite, test_store_suite, test_crashes | the same |
| 8 processes, 200 episodes each | store_suite | the same |
| disk full | test_failing, here | here |
| locked | test_failing, here | here |
| read-only | test_opening, here | here |
| damaged | test_opening, here | here |
| schema too new, too old | test_opening, test_frozen | the same |
| commit whose outcome is unknown | test_store_suite | the same |
| server lost, connection cut | (has none) | test_failing, here |
| 50 MB step, NaN, NUL, lone surrogates, clock going back | store_suite | the same |
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from episodes_made import a_step, an_episode, go_on_and_begin
from sqlalchemy.exc import OperationalError

from nr_agent.errors import StoreError
from nr_agent.store import EpisodeFilter, EpisodeStore
from nr_agent.store.care import check, read_status
from nr_agent.store.database import Database, is_transient
from nr_agent.store.spool import spool_of

Fault = Callable[[EpisodeStore, str], AbstractContextManager[Any]]


@contextmanager
def _full(store: EpisodeStore, url: str) -> Iterator[None]:
    with store._database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    yield
    with store._database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")


@contextmanager
def _locked(store: EpisodeStore, url: str) -> Iterator[None]:
    with closing(sqlite3.connect(url, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def _read_only(store: EpisodeStore, url: str) -> Iterator[None]:
    with store._database.write() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    yield
    with closing(store._database._engine("write").raw_connection()) as connection:
        connection.execute("PRAGMA query_only = OFF")  # without beginning to write


@contextmanager
def _damaged(store: EpisodeStore, url: str) -> Iterator[None]:
    store.flush()
    store._database.dispose()  # puts the log back into the file
    sound = Path(f"{url}.copy")
    shutil.copy(url, sound)
    data = bytearray(Path(url).read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    Path(url).write_bytes(data)
    yield
    # The person restores a copy, and the records that were kept beside it come in again.
    store._database.dispose()
    for rest in ("-wal", "-shm"):
        Path(f"{url}{rest}").unlink(missing_ok=True)
    shutil.move(sound, url)


def _said_by_server(state: str) -> Fault:
    """The server refuses to write, with an error of that kind."""

    @contextmanager
    def fault(store: EpisodeStore, url: str) -> Iterator[None]:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            for name in ("episodes", "steps"):
                raises = f"BEGIN RAISE EXCEPTION 'the server says {state}' USING ERRCODE = '{state}'; END"
                connection.execute(f"CREATE FUNCTION no_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ {raises} $$")
                when = "BEFORE INSERT OR UPDATE ON"
                connection.execute(f"CREATE TRIGGER no_{name} {when} {name} EXECUTE FUNCTION no_{name}()")
            yield
            for name in ("episodes", "steps"):
                connection.execute(f"DROP TRIGGER no_{name} ON {name}; DROP FUNCTION no_{name}")

    return fault


@contextmanager
def _table_locked(store: EpisodeStore, url: str) -> Iterator[None]:
    import psycopg

    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE episodes IN EXCLUSIVE MODE")
        yield
        other.rollback()


@contextmanager
def _standby(store: EpisodeStore, url: str) -> Iterator[None]:
    import psycopg

    with psycopg.connect(url, autocommit=True) as other:
        [name] = other.execute("SELECT current_database()").fetchone()
        other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        store._database.dispose()  # a fail-over cuts the connections
        yield
        other.execute("SET default_transaction_read_only = off")
        other.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        store._database.dispose()


FAULTS: dict[str, tuple[str, Fault, str]] = {
    "full": ("file", _full, "disk is full"),
    "locked": ("file", _locked, "locked"),
    "read-only": ("file", _read_only, "readonly"),
    "damaged": ("file", _damaged, r"malformed|not a database"),
    "server-full": ("postgresql", _said_by_server("53100"), "53100"),
    "server-locked": ("postgresql", _table_locked, "lock timeout"),
    "server-read-only": ("postgresql", _standby, "read-only transaction"),
    "server-damaged": ("postgresql", _said_by_server("XX001"), "XX001"),
    "server-forbids": ("postgresql", _said_by_server("42501"), "42501"),
    "server-goes": ("postgresql", _said_by_server("57P01"), "57P01"),
    "server-deadlock": ("postgresql", _said_by_server("40P01"), "40P01"),
}


@pytest.fixture(params=FAULTS)
def failing(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Fault, str]:
    """Where the store is, what happens to it, and what is said of that."""
    kind, fault, says = FAULTS[request.param]
    url = str(request.getfixturevalue("postgres_url")) if kind == "postgresql" else str(tmp_path / "e.db")
    return url, fault, says


def test_thinking_goes_on_beside_a_failing_database_and_everything_is_there_afterwards(failing, caplog):
    url, fault, says = failing
    text = "x" * 200_000
    with EpisodeStore(url, busy_timeout=0.1) as store:
        store.begin(an_episode("before"))
        with fault(store, url):
            go_on_and_begin(store, text)
            # Whoever thinks sees everything, whatever the database can tell.
            assert store.get("before").steps[4].text == text
        during = store.get("during")
        assert (during.answer, during.steps[4].discarded) == ("47", True)
        store.begin(an_episode("after", status="completed"))
    assert any(re.search(says, record.getMessage()) for record in caplog.records)
    with EpisodeStore(url) as store:
        assert {one.id for one in store.find()} == {"before", "during", "after"}
        assert store.get("before").steps[4].text == text
        assert store.get("during") == during
    status = read_status(url)
    assert (status.spooled, status.refused) == (0, 0)
    assert [one.what for one in check(url) if one.place == "database"] == []


def test_where_failures_are_to_be_raised_they_are_and_nothing_is_kept_aside(failing):
    url, fault, says = failing
    with EpisodeStore(url, busy_timeout=0.1, on_error="raise") as store:
        store.begin(an_episode("before", status="completed"))
        with fault(store, url), pytest.raises(StoreError, match=says) as caught:
            store.begin(an_episode("e", steps=[a_step(0, "prompt", "x" * 200_000)]))
        assert caught.value.hint
        store.begin(an_episode("e", status="completed"))  # the caller tries again
    with EpisodeStore(url) as store:
        assert {one.id for one in store.find(EpisodeFilter(status="completed"))} == {"before", "e"}
        assert store.get("e").steps == an_episode("e").steps
    assert read_status(url).spooled == 0


def test_what_is_kept_aside_stays_there_while_the_database_still_fails(failing, caplog):
    url, fault, _ = failing
    with EpisodeStore(url, busy_timeout=0.1) as store:
        store.begin(an_episode("before", status="completed"))
        with fault(store, url):
            store.begin(an_episode("e", steps=[a_step(0, "prompt", "x" * 200_000)]))
            store.finish("e", status="completed")
            waiting = spool_of(store._database)
            kept = waiting.path.read_bytes()
            assert kept.count(b"\n") == 5
            if fault is not _full and fault is not _read_only:  # these two hold for one connection only
                with pytest.raises(StoreError), EpisodeStore(url, busy_timeout=0.1) as second:
                    second.get("before")
                assert waiting.path.read_bytes() == kept
                assert not waiting.refused.exists()
    with EpisodeStore(url) as store:
        assert {one.id for one in store.find(EpisodeFilter(status="completed"))} == {"before", "e"}


@pytest.mark.parametrize(
    ("state", "transient"), [("54000", False), ("22003", False), ("23505", False), ("53100", True), ("57P01", True)]
)
def test_what_was_written_is_told_from_a_server_that_fails_whatever_the_driver_calls_it(state, transient):
    errors = pytest.importorskip("psycopg.errors")
    said = errors.lookup(state)("as the server says it")
    assert said.sqlstate == state
    assert is_transient(OperationalError("INSERT", {}, said)) is transient


def test_what_no_index_of_the_server_takes_harms_no_other_and_does_not_keep_the_store_closed(postgres_url, caplog):
    """The driver calls it operational, as it calls a full disk; but the server would say it every time."""
    wide = base64.b85encode(os.urandom(4000)).decode()  # the server cannot compress it
    problem = an_episode().problem.model_copy(update={"domain": wide})
    with EpisodeStore(postgres_url) as store:
        store.begin(an_episode("before", status="completed"))
        store.begin(an_episode("wide", problem=problem, status="completed"))
        store.begin(an_episode("after", status="completed"))
        assert store.get("wide").problem.domain == wide  # from where it is kept
    assert "index row size" in caplog.text
    with EpisodeStore(postgres_url) as store:
        assert {one.id for one in store.find()} == {"before", "after"}
    status = read_status(postgres_url)
    assert (status.spooled, status.refused) == (0, 7)  # the head, four steps, an event and an intervention


def test_without_patience_a_lock_of_somebody_else_s_is_not_waited_for(postgres_url):
    """PostgreSQL takes a time-out of 0 for none at all."""
    database = Database(postgres_url, busy_timeout=0)
    with database.write() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "1ms"
    database.dispose()
    with EpisodeStore(postgres_url, busy_timeout=0, on_error="raise") as store:
        with _table_locked(store, postgres_url), pytest.raises(StoreError, match="lock timeout"):
            store.begin(an_episode("e"))
        store.begin(an_episode("e", status="completed"))
        assert store.get("e").status == "completed"


def test_a_connection_that_is_cut_again_and_again_loses_nothing(postgres_url, caplog):
    import psycopg

    ended = threading.Event()

    def cut() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as other:
            while not ended.wait(0.01):
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )

    with EpisodeStore(postgres_url) as store:
        store.begin(an_episode("first", status="completed"))
        thread = threading.Thread(target=cut)
        thread.start()
        try:
            for number in range(30):
                store.begin(an_episode(f"e{number}"))
                store.add(f"e{number}", a_step(4, "think", "more"))
                store.finish(f"e{number}", status="completed", answer=str(number))
        finally:
            ended.set()
            thread.join()
    with EpisodeStore(postgres_url) as store:
        found = list(store.find(EpisodeFilter(status="completed")))
        assert len(found) == len({one.id for one in found}) == 31
        for number in range(30):
            known = store.get(f"e{number}")
            assert (len(known.steps), len(known.events), known.answer) == (5, 1, str(number))
    status = read_status(postgres_url)
    assert (status.spooled, status.refused) == (0, 0)
