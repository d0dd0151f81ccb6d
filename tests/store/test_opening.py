"""A store that cannot be used says so when it is opened; one of another version is told from one that is broken."""

from __future__ import annotations

import os
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from episodes_made import an_episode
from sqlalchemy import create_engine, inspect

from nr_agent.errors import ConfigurationError, MissingExtraError, SchemaVersionError, StoreError
from nr_agent.settings import load_settings
from nr_agent.store import EpisodeStore, upgrades
from nr_agent.store.database import Database
from nr_agent.store.schema import HEAD, REVISIONS, Base
from nr_agent.store.upgrades import VERSION_TABLE, prepare


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def assert_one_line_and_a_hint(error: StoreError) -> None:
    assert "\n" not in error.message
    assert error.hint


def test_opening_makes_the_folders_and_a_file_for_the_owner_alone(tmp_path):
    path = tmp_path / "a" / "b" / "episodes.db"
    with EpisodeStore(path) as store:
        store.begin(an_episode("e"))
    assert path.stat().st_mode & 0o077 == 0
    with EpisodeStore(f"sqlite:///{path}") as store:
        assert store.get("e").id == "e"


def test_default_store_is_the_settings_one(home):
    with EpisodeStore() as store:
        assert store.location == str(home / "episodes.db")


@pytest.mark.parametrize("name", ["with space.db", "a%20b.db", "what?.db", "hash#.db"])
def test_a_path_is_taken_as_it_is(tmp_path, name):
    with EpisodeStore(tmp_path / name) as store:
        store.begin(an_episode("e"))
    assert (tmp_path / name).is_file()


def test_a_missing_store_is_not_made_when_it_is_only_to_be_read(tmp_path):
    with pytest.raises(StoreError, match="there is no episode store") as caught:
        EpisodeStore(tmp_path / "none.db", create=False)
    assert_one_line_and_a_hint(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("query", ["mode=ro&uri=true", "immutable=1&mode=ro&uri=true"])
def test_a_store_that_cannot_be_written_is_refused_at_opening(tmp_path, query):
    path = tmp_path / "e.db"
    EpisodeStore(path).close()
    with pytest.raises(StoreError, match=r"readonly|read-only") as caught:
        EpisodeStore(f"sqlite:///file:{path}?{query}")
    assert_one_line_and_a_hint(caught.value)


def test_a_folder_that_cannot_be_made_is_refused_at_opening(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "e.db", tmp_path / "file" / "deeper" / "e.db", tmp_path):
        with pytest.raises(StoreError, match=str(path)) as caught:
            EpisodeStore(path)
        assert_one_line_and_a_hint(caught.value)


@pytest.mark.parametrize("damage", ["text", "header"])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, damage):
    path = tmp_path / "e.db"
    EpisodeStore(path).close()
    content = b"not a database " * 500 if damage == "text" else b"SQLite format 3\0" + os.urandom(8000)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=str(path)) as caught:
        EpisodeStore(path)
    assert_one_line_and_a_hint(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"x", b"notes of mine\n", b"SQLite format 3", b"\0"])
def test_a_small_file_of_somebodys_is_not_taken_for_an_empty_database(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for create in (True, False):
        with pytest.raises(StoreError, match="not a database") as caught:
            EpisodeStore(path, create=create)
        assert_one_line_and_a_hint(caught.value)
    assert path.read_bytes() == content
    assert [one.name for one in tmp_path.iterdir() if one != path] in ([], ["home"])


def test_damage_in_the_middle_of_a_file_is_a_store_error(tmp_path):
    path = tmp_path / "e.db"
    with EpisodeStore(path) as store:
        for number in range(50):
            store.begin(an_episode(f"e{number}"))
    data = bytearray(path.read_bytes())
    data[8192:] = os.urandom(len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=str(path)), EpisodeStore(path) as store:
        for number in range(50):
            store.get(f"e{number}")


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.db"
    execute(path, "CREATE TABLE customers (id INTEGER)")
    with pytest.raises(StoreError, match=r"no episode store.*customers"):
        EpisodeStore(path)
    assert inspect(create_engine(f"sqlite:///{path}")).get_table_names() == ["customers"]


def test_a_newer_store_is_refused_with_its_own_error(lasting):
    EpisodeStore(lasting).close()
    database = Database(lasting)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE nr_agent_version SET version_num = '9999_future'")
    database.dispose()
    with pytest.raises(SchemaVersionError, match=r"9999_future.*newer") as caught:
        EpisodeStore(lasting)
    assert "upgrade nr-agent" in caught.value.hint


def test_a_store_from_before_the_first_schema_is_upgraded_and_a_copy_is_kept(tmp_path):
    path = tmp_path / "old.db"
    execute(path, f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)")
    with EpisodeStore(path) as store:
        store.begin(an_episode("e"))
        assert store.get("e").id == "e"
    assert (tmp_path / f"old.db.before-{HEAD}").is_file()


@pytest.mark.skipif(os.name == "nt", reason="on Windows a file has no permission bits of its owner")
def test_the_copy_before_an_upgrade_is_for_the_owner_alone(tmp_path):
    path, copy = tmp_path / "old.db", tmp_path / f"old.db.before-{HEAD}"
    execute(path, f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)")
    copy.write_text("of an earlier attempt")
    copy.chmod(0o644)
    EpisodeStore(path).close()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert tables(copy) == {VERSION_TABLE}
    assert not list(tmp_path.glob("*.partial*"))


def test_whoever_upgrades_second_leaves_the_copy_of_the_first(tmp_path, monkeypatch):
    path, real = tmp_path / "old.db", upgrades._upgrade
    execute(path, f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)")

    def late(database):
        monkeypatch.setattr(upgrades, "_upgrade", real)
        EpisodeStore(path).close()
        real(database)

    monkeypatch.setattr(upgrades, "_upgrade", late)
    with EpisodeStore(path) as store:
        store.begin(an_episode("e"))
        assert store.get("e").id == "e"
    assert "episodes" in tables(path)
    assert tables(tmp_path / f"old.db.before-{HEAD}") == {VERSION_TABLE}


def test_without_a_copy_there_is_no_upgrade(tmp_path, monkeypatch):
    path = tmp_path / "old.db"
    execute(path, f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)")

    def full(path):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(upgrades, "sqlite3", SimpleNamespace(connect=full, Error=sqlite3.Error))
        with pytest.raises(StoreError, match="copied before its upgrade: database or disk is full") as caught:
            EpisodeStore(path)
    assert_one_line_and_a_hint(caught.value)
    assert tables(path) == {VERSION_TABLE}
    assert not list(tmp_path.glob("old.db.before-*"))
    EpisodeStore(path).close()
    assert "episodes" in tables(path)


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_tables_as_created_are_the_tables_as_migrated(lasting):
    """And both are what the models say, on every kind of database."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database = Database(lasting)
    database.make_place(create=True)
    for created in (False, True):
        with database.migrate() as connection:
            Base.metadata.drop_all(connection)
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {VERSION_TABLE}")
            if not created:
                connection.exec_driver_sql(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)")
        prepare(database)
        with database.read() as connection:
            options = {"version_table": VERSION_TABLE, "compare_type": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
            tables = inspect(connection)
            shape = {
                name: (tables.get_columns(name), tables.get_pk_constraint(name), tables.get_indexes(name))
                for name in sorted(Base.metadata.tables)
            }
            keys = {name: tables.get_foreign_keys(name) for name in shape}
        if not created:
            migrated = repr((shape, keys))
    database.dispose()
    assert repr((shape, keys)) == migrated


def test_revisions_are_the_migrations_that_there_are():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "nr_agent:store/migrations")
    found = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_alembic_is_not_loaded_for_a_store_that_is_new_or_up_to_date(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from nr_agent.store import EpisodeStore\n"
        f"[EpisodeStore({str(tmp_path / 'e.db')!r}).close() for _ in 'ab']\n"
        "assert not {'alembic', 'torch', 'transformers', 'langgraph'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("url", "message"),
    [("mysql://root@localhost/x", "mysql|MySQL"), ("://", "URL"), ("oracle://x/y", "oracle"), ("nosuch://x", "nosuch")],
)
def test_a_url_that_cannot_be_used_is_an_error_with_a_hint(url, message):
    with pytest.raises(StoreError, match=message) as caught:
        EpisodeStore(url)
    assert_one_line_and_a_hint(caught.value)


def test_postgresql_without_its_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match="psycopg") as caught:
        EpisodeStore("postgresql://postgres@/x")
    assert "nr-agent[postgres]" in caught.value.hint


def test_a_server_that_is_not_there_is_a_store_error_without_the_password(tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as caught:
        EpisodeStore(f"postgresql://me:secret@/x?host={tmp_path}")
    assert "secret" not in str(caught.value)
    assert_one_line_and_a_hint(caught.value)


def test_a_store_goes_to_another_process_as_its_location(tmp_path):
    with EpisodeStore(tmp_path / "e.db") as store:
        store.begin(an_episode("e"))
        with pickle.loads(pickle.dumps(store)) as other:  # noqa: S301 - our own
            assert other.get("e").id == "e"
    with pytest.raises(StoreError, match="memory"):
        pickle.dumps(EpisodeStore.in_memory())


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NR_AGENT_STORE", "x.db")
    monkeypatch.setenv("NR_AGENT_MODEL", "mini")
    assert (load_settings().store_url, load_settings().model) == ("x.db", "mini")
    monkeypatch.delenv("NR_AGENT_STORE")
    monkeypatch.delenv("NR_AGENT_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_settings().store_url == str(tmp_path / "nr_agent" / "episodes.db")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert load_settings().home == Path.home() / ".local" / "share" / "nr_agent"


def test_a_setting_without_sense_is_a_configuration_error():
    from nr_agent.settings import Settings

    with pytest.raises(ValueError, match="extra"):
        Settings(sotre="x")
    assert issubclass(ConfigurationError, Exception)
