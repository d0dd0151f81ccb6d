"""Databases of every schema that there has been, as they were written then, are opened, upgraded and read."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from episodes_made import an_episode

from nr_agent.episode import Episode
from nr_agent.store import EpisodeFilter, EpisodeStore
from nr_agent.store.care import check, read_status, upgrade
from nr_agent.store.schema import HEAD, REVISIONS

FROZEN = Path(__file__).parent / "frozen"


@pytest.fixture(params=["sqlite", "postgresql"])
def thaw(request, tmp_path):
    """Makes a database as it was with a schema."""

    def make(revision: str) -> str:
        script = (FROZEN / f"{revision}.{request.param}.sql").read_text(encoding="utf-8")
        if request.param == "sqlite":
            path = tmp_path / "old.db"
            with closing(sqlite3.connect(path)) as connection:
                connection.executescript(script)
            return str(path)
        import psycopg

        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(script.encode())
        return str(url)

    return make


def test_every_past_schema_is_frozen():
    assert {path.name for path in FROZEN.iterdir()} == {
        f"{revision}.{kind}" for revision in REVISIONS[:-1] for kind in ("json", "sqlite.sql", "postgresql.sql")
    }


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_store_of_a_past_schema_is_upgraded_when_it_is_opened_and_holds_what_it_held(thaw, revision):
    url = thaw(revision)
    assert read_status(url).standing == "older"
    expected = json.loads((FROZEN / f"{revision}.json").read_text(encoding="utf-8"))
    with EpisodeStore(url) as store:
        assert {one.id: store.get(one.id) for one in store.find()} == {
            episode_id: Episode.model_validate(values) for episode_id, values in expected.items()
        }
        # And it takes what the schema of today can hold.
        store.begin(an_episode("new", status="completed"))
        store.annotate("e-completed", "still here")
        assert [one.episodes for one in store.runs()] == [1]
        assert {one.id for one in store.find(EpisodeFilter(event="overthinking"))} == {"e-failed"}
    assert read_status(url).standing == "current"
    if "://" not in url:
        assert Path(f"{url}.before-{HEAD}").is_file()


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_upgrading_by_command_says_from_where_to_where_and_breaks_nothing(thaw, revision):
    url = thaw(revision)
    assert upgrade(url) == (revision, HEAD)
    assert upgrade(url) == (HEAD, HEAD)
    # The steps of these were never laid end to end.
    assert {fault.place for fault in check(url)} <= {"e-completed"}
