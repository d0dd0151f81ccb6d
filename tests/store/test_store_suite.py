"""The public suite, on SQLite and on a real PostgreSQL; and faults that only a database can have."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import ClassVar

import pytest
from sqlalchemy.exc import OperationalError

from nr_agent.store import EpisodeFilter, EpisodeStore
from nr_agent.store.care import check
from nr_agent.testing.store_suite import StoreConformance, make_episode, make_step


class TestSQLite(StoreConformance):
    @pytest.fixture
    def location(self, tmp_path):
        return str(tmp_path / "episodes.db")


class TestPostgreSQL(StoreConformance):
    @pytest.fixture
    def location(self, postgres_url):
        return postgres_url


class TestSQLiteThroughAFullQueue(StoreConformance):
    """The same with room for almost nothing in the queue."""

    options: ClassVar = {"capacity": 2}
    processes, episodes, large = 2, 20, 100_000
    test_killed_at_any_stage_an_episode_is_there_as_far_as_it_was_acknowledged = None  # as with any queue

    @pytest.fixture
    def location(self, tmp_path):
        return str(tmp_path / "episodes.db")


# Where in the writing of an episode the process dies: after each statement (the episode, its steps, its events, its
# interventions; its end), with the transaction open, and right before and after the commit.
STAGES = [*(f"statement {number}" for number in range(1, 6)), "before commit", "after commit"]
CODE = """
import os, signal, sys
from sqlalchemy import event
from nr_agent.store import EpisodeStore
from nr_agent.testing.store_suite import make_episode
stage = sys.argv[2]
store = EpisodeStore(sys.argv[1])
store.begin(make_episode("first", status="completed"))
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
engine = store._database._engine("write")
dialect, done = engine.dialect, []
commit = dialect.do_commit
@event.listens_for(engine, "after_cursor_execute")
def executed(connection, cursor, statement, *rest):
    done.extend([1] * statement.startswith(("INSERT", "UPDATE")))
    if stage == f"statement {len(done)}":
        die()
def dying_commit(connection):
    if stage == "before commit":
        die()
    commit(connection)
    if stage == "after commit":
        die()
dialect.do_commit = dying_commit
whole = make_episode("e")
store.begin(whole)
os.write(1, b"begun")
store.finish("e", status="completed", answer="47")
"""


@pytest.mark.parametrize("stage", STAGES)
def test_killed_inside_the_transaction_an_episode_is_there_as_a_whole_or_not_at_all(lasting, stage):
    done = subprocess.run([sys.executable, "-c", CODE, lasting, stage], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with EpisodeStore(lasting) as store:
        found = {one.id for one in store.find()}
        assert "first" in found
        if b"begun" in done.stdout or stage == "after commit":
            assert "e" in found
        if "e" in found:
            known = store.get("e")
            assert (known.steps, known.events) == (make_episode("e").steps, make_episode("e").events)
            assert known.status == "abandoned"
    assert list(check(lasting)) == []


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("on_error", ["spool", "raise"])
def test_a_commit_whose_outcome_is_unknown_writes_once(lasting, on_error, times, monkeypatch, caplog):
    with EpisodeStore(lasting, on_error="spool") as store:
        store.begin(make_episode("warm", status="completed"))
    with EpisodeStore(lasting, on_error=on_error) as store:
        store.begin(make_episode("first", status="completed"))
        dialect = store._database._engine("write").dialect
        real, left = dialect.do_commit, [times]

        def commit(connection):
            real(connection)
            if left[0]:
                left[0] -= 1
                # It is written, and nobody is told: the connection broke on the way back.
                raise OperationalError("COMMIT", {}, Exception("connection lost"))

        monkeypatch.setattr(dialect, "do_commit", commit)
        whole = make_episode("e")
        try:
            store.begin(whole)
            store.finish("e", status="completed", answer="47")
        except Exception as error:
            # Where the caller is told, the caller tries again.
            assert on_error == "raise"
            assert "connection lost" in str(error)
            left[0] = 0
            store.begin(whole)
            store.finish("e", status="completed", answer="47")
    with EpisodeStore(lasting) as store:
        found = sorted(one.id for one in store.find(EpisodeFilter(status="completed")))
        assert found == ["e", "first", "warm"]
        known = store.get("e")
        assert (known.steps, len(known.events), known.answer) == (whole.steps, 1, "47")


def test_a_large_step_waits_beside_a_full_database_and_is_there_afterwards(tmp_path, caplog):
    path = tmp_path / "e.db"
    text = "x" * 50_000_000
    with EpisodeStore(path) as store:
        store.begin(make_episode("e"))
        with store._database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        store.add("e", make_step(1, text=text))
        store.finish("e", status="completed")
    assert "disk is full" in caplog.text
    with EpisodeStore(path) as store:
        assert store.get("e").steps[1].text == text
        assert store.get("e").status == "completed"
