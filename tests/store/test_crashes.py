"""What was acknowledged survives; what was not is written once or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from episodes_made import a_step, an_episode
from sqlalchemy import select

from nr_agent.store import EpisodeFilter, EpisodeStore, standing
from nr_agent.store.database import Database
from nr_agent.store.operations import EPISODES
from nr_agent.store.owner import is_alive, this_process

HERE = Path(__file__).parent
HEAD = (
    "import os, signal, sys\n"
    f"sys.path.insert(0, {str(HERE)!r})\n"
    "from episodes_made import a_step, an_episode\n"
    "from nr_agent.store import EpisodeStore\n"
    "store = EpisodeStore(sys.argv[1])\n"
    "die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
)


def run(code: str, url: str, *, killed: bool = True) -> None:
    done = subprocess.run([sys.executable, "-c", HEAD + code, url], capture_output=True, text=True, timeout=60)
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr


def test_killed_between_commit_and_acknowledgement_writes_the_episode_once(lasting):
    run("store._writer._acknowledge = die\nstore.begin(an_episode('e', status='completed'))", lasting)
    with EpisodeStore(lasting) as store:
        assert store.get("e").status == "completed"
        # The caller never heard of it, and tries again.
        store.begin(an_episode("e", status="completed"))
        store.add("e", *an_episode("e").events)
        [found] = store.find()
        assert (found.events, found.interventions, len(store.steps("e"))) == (1, 1, 4)


def test_killed_before_the_commit_leaves_no_torn_episode(lasting):
    code = (
        "from sqlalchemy import event\n"
        "@event.listens_for(store._database._engine('write'), 'after_cursor_execute')\n"
        "def executed(connection, cursor, statement, *rest):\n"
        "    if 'INTO steps' in statement: die()\n"
        "store.begin(an_episode('e'))\n"
    )
    run(code, lasting)
    with EpisodeStore(lasting) as store:
        assert list(store.find()) == []


def test_killed_in_the_middle_leaves_a_readable_store_and_an_abandoned_episode(lasting):
    code = "store.begin(an_episode('e'))\nstore.add('e', a_step(4, 'think', 'x'))\nstore.flush()\ndie()\n"
    run(code, lasting)
    with EpisodeStore(lasting) as store:
        episode = store.get("e")
        assert (episode.status, len(episode.steps)) == ("abandoned", 5)
        assert episode.ended_at is not None
        # Whoever takes it up again makes it run.
        store.add("e", a_step(5, "think", "y"))
        assert (store.get("e").status, store.get("e").ended_at) == ("running", None)


def test_everything_that_was_added_is_there_when_a_process_ends_without_closing(lasting):
    run(
        "store.begin(an_episode('e'))\nfor n in range(4, 300): store.add('e', a_step(n, 'think', 'x'))",
        lasting,
        killed=False,
    )
    with EpisodeStore(lasting) as store:
        assert len(store.steps("e")) == 300


def test_an_episode_whose_process_lives_is_left_running(lasting):
    with EpisodeStore(lasting) as store:
        store.begin(an_episode("e"))
        with EpisodeStore(lasting) as second:
            assert second.get("e").status == "running"


@pytest.mark.parametrize("owner", ["elsewhere|pid:[1]|17|1", None])
@pytest.mark.parametrize(("minutes", "status"), [(1, "running"), (60, "abandoned")])
def test_a_process_that_cannot_be_looked_at_is_judged_by_its_last_sign_of_life(lasting, minutes, status, owner):
    with EpisodeStore(lasting) as store:
        store.begin(an_episode("e"))
    database = Database(lasting)
    with database.write() as connection:
        seen = datetime.now(UTC) - timedelta(minutes=minutes)
        connection.execute(EPISODES.update().values(owner=owner, heartbeat_at=seen))
    database.dispose()
    with EpisodeStore(lasting) as store:
        assert store.get("e").status == status


def test_an_episode_that_somebody_takes_up_while_it_is_judged_is_not_given_up(postgres_url, monkeypatch):
    with EpisodeStore(postgres_url) as store:
        store.begin(an_episode("e"))
    gone, comes = "elsewhere|pid:[1]|17|1", "elsewhere|pid:[1]|18|1"
    database = Database(postgres_url)
    with database.write() as connection:
        seen = datetime.now(UTC) - timedelta(minutes=60)
        connection.execute(EPISODES.update().values(owner=gone, heartbeat_at=seen))
    judged = []

    def judge(owner):
        judged.append(owner)
        with database.write() as other:
            standing.touch(other, ["e"], owner=comes, now=datetime.now(UTC))
        return is_alive(owner)

    monkeypatch.setattr(standing, "is_alive", judge)
    with database.write() as connection:
        standing.give_up_lost(connection)
    with database.read() as connection:
        found = connection.execute(select(EPISODES.c.owner, EPISODES.c.status, EPISODES.c.ended_at)).one()
    database.dispose()
    assert judged == [gone]
    assert tuple(found) == (comes, "running", None)


def test_a_process_number_that_was_given_out_again_is_another_process():
    assert is_alive(this_process()) is True
    place, _, started = this_process().rpartition("|")
    if started:
        assert is_alive(f"{place}|1") is False
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert is_alive(this_process().replace(f"|{os.getpid()}|", f"|{dead.pid}|")) is False
    assert is_alive("elsewhere|x|1|2") is None
    assert is_alive(None) is None


def test_running_episodes_give_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("nr_agent.store.store._HEARTBEAT", 0.02)
    with EpisodeStore(tmp_path / "e.db") as store:
        store.begin(an_episode("e"))
        first = _heartbeat(tmp_path / "e.db")
        deadline = threading.Event()
        for _ in range(200):
            if _heartbeat(tmp_path / "e.db") > first:
                break
            deadline.wait(0.02)
        else:
            pytest.fail("no sign of life")


def _heartbeat(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT heartbeat_at FROM episodes").fetchone()[0]


@pytest.mark.parametrize("kind", ["file", "postgresql"])
def test_processes_that_write_at_once_lose_nothing(kind, tmp_path, request):
    url = str(tmp_path / "e.db") if kind == "file" else request.getfixturevalue("postgres_url")
    code = (
        "import json\n"
        "for number in range(30):\n"
        "    name = f'{sys.argv[2]}-{number}'\n"
        "    store.begin(an_episode(name))\n"
        "    store.add(name, *(a_step(n, 'think', 'x') for n in range(4, 8)))\n"
        "    store.finish(name, status='completed')\n"
        "store.close()\n"
    )
    # The store is not there yet: they race for making it, too.
    started = [subprocess.Popen([sys.executable, "-c", HEAD + code, url, str(n)]) for n in range(4)]
    assert [process.wait(timeout=120) for process in started] == [0] * 4
    with EpisodeStore(url) as store:
        found = list(store.find(EpisodeFilter(status="completed")))
        assert len(found) == 120
        assert all(len(store.steps(one.id)) == 8 for one in found[::17])
    if kind == "file":
        with closing(sqlite3.connect(url)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_threads_that_write_at_once_lose_nothing(anywhere):
    with EpisodeStore(anywhere, on_error="raise", capacity=20) as store:

        def work(name: str) -> None:
            store.begin(an_episode(name))
            for number in range(4, 40):
                store.add(name, a_step(number, "think", "x"))
            assert len(store.get(name).steps) == 40
            store.finish(name, status="completed")

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(store.find(EpisodeFilter(status="completed")))) == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork a process")
def test_a_forked_child_writes_with_its_own_connections(lasting):
    with EpisodeStore(lasting) as store:
        store.begin(an_episode("parent"))
        store.add("parent", a_step(4, "think", "queued by the parent"))
        child = multiprocessing.get_context("fork").Process(target=_write_in_child, args=(store,))
        child.start()
        child.join(timeout=60)
        assert child.exitcode == 0
        store.add("parent", a_step(5, "think", "on"))
        assert len(store.steps("parent")) == 6
        assert store.get("child").status == "completed"


def _write_in_child(store: EpisodeStore) -> None:
    store.begin(an_episode("child"))
    store.finish("child", status="completed")
    assert store.get("parent").id == "parent"
    store.flush()
    os._exit(0)  # as multiprocessing does it, without the parent's clean-up


def test_an_episode_is_one_json_object_on_the_way_out(store):
    store.begin(an_episode("e"))
    assert json.loads(store.get("e").model_dump_json())["id"] == "e"
