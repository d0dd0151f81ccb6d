"""When the database fails in the middle, thinking goes on and nothing is lost."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from episodes_made import a_step, an_episode, go_on_and_begin

from nr_agent.errors import StoreError
from nr_agent.store import EpisodeStore

BIG = "x" * 200_000


def fill(store: EpisodeStore) -> None:
    """Leave the database no room to grow."""
    with store._database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


def spool(path: Path) -> Path:
    return path.with_name(path.name + ".spool.jsonl")


def test_a_full_disk_loses_nothing_and_stops_nobody(tmp_path, caplog):
    path = tmp_path / "e.db"
    with EpisodeStore(path) as store:
        store.begin(an_episode("before"))
        fill(store)
        go_on_and_begin(store, BIG)
        # The one who asks in the meantime sees everything.
        assert store.get("before").steps[4].text == BIG
        during = store.get("during")
        assert (during.status, during.answer, during.steps[4].discarded) == ("completed", "47", True)
        assert during.usage.discarded == len(BIG)
    assert "database or disk is full" in caplog.text
    assert spool(path).read_text().count("\n") > 5
    with EpisodeStore(path) as store:
        assert spool(path).read_text() == ""
        assert store.get("before").steps[4].text == BIG
        assert store.get("during") == during


def test_what_was_kept_aside_is_replayed_once_even_if_replaying_was_interrupted(tmp_path):
    path = tmp_path / "e.db"
    with EpisodeStore(path) as store:
        fill(store)
        store.begin(an_episode("e", steps=[a_step(0, "prompt", BIG)]))
    kept = spool(path).read_bytes()
    for _ in range(2):
        spool(path).write_bytes(kept)
        with EpisodeStore(path) as store:
            [found] = store.find()
            assert (found.events, len(store.steps("e"))) == (1, 1)


def test_a_torn_line_in_the_spool_is_set_aside_and_the_rest_is_replayed(tmp_path, caplog):
    path = tmp_path / "e.db"
    with EpisodeStore(path) as store:
        fill(store)
        store.begin(an_episode("e", steps=[a_step(0, "prompt", BIG)]))
        with spool(path).open("a") as file:
            file.write('{"kind": "st')  # a process died here
        store.add("e", a_step(1, "think", "after"))
        store.flush()
    with EpisodeStore(path) as store:
        assert [step.text for step in store.steps("e")] == [BIG, "after"]
    assert path.with_name("e.db.spool.jsonl.refused").read_text() == '{"kind": "st\n'
    assert "cannot be replayed" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="on Windows a file has no permission bits of its owner")
def test_what_a_spool_sets_aside_is_for_the_owner_alone(tmp_path):
    path = tmp_path / "e.db"
    EpisodeStore(path).close()
    for number in range(2):
        spool(path).write_text(f"no record {number}\n")
        EpisodeStore(path).close()
    refused = path.with_name("e.db.spool.jsonl.refused")
    assert refused.read_text() == "no record 0\nno record 1\n"
    assert refused.stat().st_mode & 0o777 == 0o600


def test_a_spool_that_cannot_be_written_either_is_an_error_when_the_store_is_closed(tmp_path, caplog):
    path = tmp_path / "e.db"
    spool(path).mkdir()
    store = EpisodeStore(path)
    fill(store)
    store.begin(an_episode("e", steps=[a_step(0, "prompt", BIG)]))
    assert store.get("e").steps[0].text == BIG
    with pytest.raises(StoreError, match="could not be written anywhere"):
        store.close()
    assert "in memory only" in caplog.text


def test_a_full_disk_is_raised_where_that_was_asked_for(tmp_path):
    path = tmp_path / "e.db"
    with EpisodeStore(path, on_error="raise") as store:
        fill(store)
        with pytest.raises(StoreError, match="full"):
            store.begin(an_episode("e", steps=[a_step(0, "prompt", BIG)]))
        store.begin(an_episode("small", steps=[], events=[], interventions=[]))
        assert store.get("small").id == "small"
    assert not spool(path).exists()


def test_an_error_goes_to_the_thread_whose_record_it_is(tmp_path):
    with EpisodeStore(tmp_path / "e.db", on_error="raise") as store:
        store.begin(an_episode("warm"))
        fill(store)
        results: dict[str, object] = {}

        def begin(name: str, steps: list) -> None:
            try:
                store.begin(an_episode(name, steps=steps, events=[], interventions=[]))
                results[name] = None
            except StoreError as error:
                results[name] = error

        big = [a_step(0, "prompt", BIG)]
        threads = [threading.Thread(target=begin, args=(f"{n}", big if n % 2 else [])) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        written = {one.id for one in store.find()} - {"warm"}
        assert written == {name for name, error in results.items() if error is None}
        assert all(results[f"{n}"] is not None for n in range(1, 8, 2))


def test_an_error_of_a_queued_record_is_raised_to_the_next_caller(tmp_path):
    with EpisodeStore(tmp_path / "e.db", on_error="raise") as store:
        store.begin(an_episode("e"))
        fill(store)
        store.add("e", a_step(4, "think", BIG))
        with pytest.raises(StoreError, match="full"):
            store.finish("e", status="completed")


def test_a_locked_database_is_waited_for_and_then_written_aside(tmp_path, caplog):
    path = tmp_path / "e.db"
    with EpisodeStore(path, busy_timeout=0.05) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            store.begin(an_episode("e"))
            assert store.get("e").id == "e"
            other.execute("ROLLBACK")
        store.begin(an_episode("later"))
    assert "locked" in caplog.text
    with EpisodeStore(path) as store:
        assert {one.id for one in store.find()} == {"e", "later"}


def test_one_record_that_no_database_takes_does_not_take_others_with_it(tmp_path, caplog):
    path = tmp_path / "e.db"
    with EpisodeStore(path) as store:
        store.begin(an_episode("good"))
        store.begin(an_episode("bad"))
        store.add("good", a_step(4, "think", "a"))
        store.add("bad", a_step(4, "think", "b", start=2**70))
        store.add("good", a_step(5, "think", "c"))
        assert len(store.steps("good")) == 6
        assert store.steps("bad")[4].start == 2**70  # from where it is kept
    with EpisodeStore(path) as store:
        assert len(store.steps("good")) == 6
        assert len(store.steps("bad")) == 4
    assert '"start": 1180591620717411303424' in path.with_name("e.db.spool.jsonl.refused").read_text()
    assert "too large" in caplog.text


def test_a_lost_server_is_survived(postgres_url, home, caplog):
    import psycopg

    with EpisodeStore(postgres_url) as store:
        store.begin(an_episode("e"))
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        store.add("e", a_step(4, "think", "on"))
        assert len(store.steps("e")) == 5


def test_a_postgresql_spool_is_in_the_home_folder_without_the_password(postgres_url, home):
    with EpisodeStore(postgres_url) as store:
        store._writer._save_aside([])
        assert store._writer.spool.path.parent == home / "spool"
