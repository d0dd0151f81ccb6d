"""Reading back: runs, annotations, what is new, and tables of everything."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from episodes_made import a_step, an_episode
from sqlalchemy import event

from nr_agent.cli.main import app
from nr_agent.episode import Problem
from nr_agent.errors import ConfigurationError, MissingExtraError, NotFoundError
from nr_agent.store import EpisodeFilter, EpisodeStore
from nr_agent.store.frames import TABLES


@pytest.fixture
def nr(capsys):
    def run(line: str) -> str:
        capsys.readouterr()
        app(shlex.split(line), standalone_mode=False)
        return capsys.readouterr().out

    return run


# --- runs ---


def test_episodes_belong_to_the_run_of_the_store_that_began_them(lasting):
    for name in ("first", "second"):
        with EpisodeStore(lasting, run=name, config={"n": 3}) as store:
            store.begin(an_episode(f"{name}-1", status="completed"))
            store.begin(an_episode(f"{name}-2", status="completed"))
    with EpisodeStore(lasting) as store:
        # One that is only looked at is no run, and an episode that is gone over again stays in its own.
        store.begin(an_episode("first-1", status="completed"))
        later, second, first = store.runs()
        assert (first.name, first.config, first.episodes, second.episodes, later.episodes) == (
            "first",
            {"n": 3},
            2,
            2,
            0,
        )
        assert first.versions["nr-agent"]
        found = {one.id for one in store.find(EpisodeFilter(run=first.id))}
        assert found == {"first-1", "first-2"}


# --- annotations ---


def test_what_is_said_about_an_episode_stays_in_order_and_finds_it(store):
    for name in ("aa", "bb"):
        store.begin(an_episode(name, status="completed"))
    store.annotate("aa", "the slip is here", label="slip", step=1, author="ann")
    store.annotate("a", "\0odd\ud800", author="bob")
    said = store.annotations("aa")
    assert [(one.note, one.label, one.step, one.author) for one in said] == [
        ("the slip is here", "slip", 1, "ann"),
        ("\ufffdodd\ufffd", None, None, "bob"),
    ]
    assert [one.id for one in store.find(EpisodeFilter(annotation="slip"))] == ["aa"]
    assert store.annotations("bb") == []
    for ask in (lambda: store.annotate("zz", "x"), lambda: store.annotations("zz")):
        with pytest.raises(NotFoundError):
            ask()


def test_annotations_go_with_their_episode(store):
    store.begin(an_episode("aa", status="completed"))
    store.annotate("aa", "x")
    assert store.delete(["aa"]) == 1
    assert store.to_arrow("annotations").num_rows == 0


def test_annotate_and_show_on_the_command_line(tmp_path, nr):
    path = tmp_path / "e.db"
    with EpisodeStore(path) as store:
        store.begin(an_episode("aa-1", status="completed", answer="47", correct=True))
    assert (
        nr(f"episodes annotate aa 'wrong \x1b[2J sign' --label slip --step 1 --author ann --store {path}") == "aa-1\n"
    )
    out = nr(f"episodes show aa --store {path}")
    assert "ann (step 1): slip: wrong" in out
    assert "\x1b" not in out
    assert [json.loads(line)["id"] for line in nr(f"episodes ls --label slip --json --store {path}").splitlines()] == [
        "aa-1"
    ]
    with pytest.raises(ConfigurationError, match="nothing is said"):
        nr(f"episodes annotate aa --store {path}")
    assert "1 episodes" in nr(f"episodes runs --store {path}")


# --- filters ---


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--outcome correct", ["e0", "e2"]),
        ("--outcome wrong", ["e1"]),
        ("--domain law", ["e1"]),
        ("--policy p2", ["e2"]),
        ("--model m1 --outcome wrong", ["e1"]),
        ("--intervention recheck --since 2026-01-02 --until 2026-01-03", ["e1"]),
    ],
)
def test_ls_filters_by_everything_that_there_is(tmp_path, nr, options, expected):
    with EpisodeStore(tmp_path / "e.db") as store:
        for number in range(3):
            made = an_episode(
                f"e{number}",
                status="completed",
                correct=number != 1,
                problem=Problem(text="p", domain="law" if number == 1 else "math"),
                model=f"m{number % 2}",
                policy=f"p{number}",
                created_at=datetime(2026, 1, 1 + number, 12, tzinfo=UTC),
            )
            store.begin(made)
    out = nr(f"episodes ls --json {options} --store {tmp_path / 'e.db'}")
    assert sorted(json.loads(line)["id"] for line in out.splitlines()) == expected
    with pytest.raises(ConfigurationError, match="--outcome"):
        nr(f"episodes ls --outcome perfect --store {tmp_path / 'e.db'}")


# --- what is new ---


def test_a_watcher_sees_every_episode_begin_and_end_once(lasting):
    with EpisodeStore(lasting) as store, EpisodeStore(lasting) as other:
        store.begin(an_episode("old", status="completed"))
        seen, ended = [], threading.Event()

        def watch() -> None:
            for one in other.watch(every=0.02, ended=ended):
                seen.append((one.id, one.status))
                moved.set()

        def wait_for(pair) -> None:
            for _ in range(500):
                if pair in seen:
                    return
                moved.wait(0.05)
                moved.clear()
            pytest.fail(f"{pair} was never seen: {seen}")

        moved = threading.Event()
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            wait_for(("old", "completed"))
            store.begin(an_episode("new"))
            wait_for(("new", "running"))
            store.finish("new", status="completed")
            wait_for(("new", "completed"))
        finally:
            ended.set()
            watcher.join()
        assert seen == [("old", "completed"), ("new", "running"), ("new", "completed")]


def test_what_begins_while_the_last_ones_are_shown_is_not_missed(lasting):
    with EpisodeStore(lasting) as store:
        for number in range(3):
            store.begin(an_episode(f"e{number}", status="completed"))
        looking = store.watch(EpisodeFilter(limit=2), every=0.02)
        assert next(looking).id == "e1"
        store.begin(an_episode("fresh", status="completed"))
        assert [next(looking).id, next(looking).id] == ["e2", "fresh"]
        store.begin(an_episode("after"))
        assert next(looking).id == "after"


def test_tail_shows_the_last_ones_and_follows_until_it_is_interrupted(tmp_path, nr):
    path = tmp_path / "e.db"
    with EpisodeStore(path) as store:
        for number in range(5):
            store.begin(an_episode(f"e{number}", status="completed", answer="47", correct=True))
        out = nr(f"episodes tail -n 2 --json --store {path}")
        assert [json.loads(line)["id"] for line in out.splitlines()] == ["e3", "e4"]
        assert "-> 47 (right)" in nr(f"episodes tail -n 1 --store {path}")
        command = [sys.executable, "-m", "nr_agent.cli", "episodes", "tail", "-f", "-n", "1", "--every", "0.05"]
        with subprocess.Popen(
            [*command, "--store", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout.readline().startswith("e4")
                store.begin(an_episode("fresh"))
                assert process.stdout.readline().startswith("fresh")
                process.send_signal(signal.SIGINT)
                _, error = process.communicate(timeout=60)
            finally:
                process.kill()
    assert (process.returncode, error) == (130, "interrupted\n")


# --- tables ---


def test_arrow_holds_every_row_of_every_kind_as_it_is(store):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install 'nr-agent[export]')")
    for number in range(3):
        made = an_episode(f"e{number}", status="completed", correct=number > 0, seed=2**64 - 1)
        store.begin(made)
        store.add(made.id, a_step(1, "think", "ab", logprobs=[-0.5, None]))
    store.annotate("e1", "x", label="l")
    episodes = store.to_arrow()
    assert episodes.column("id").to_pylist() == ["e0", "e1", "e2"]
    assert episodes.column("seed").to_pylist() == [str(2**64 - 1)] * 3
    assert str(episodes.schema.field("created_at").type) == "timestamp[us, tz=UTC]"
    steps = store.to_arrow("steps", EpisodeFilter(correct=False)).to_pylist()
    assert [(row["episode_id"], row["index"]) for row in steps] == [("e0", index) for index in range(4)]
    assert (steps[1]["ids"], steps[1]["logprobs"]) == ([97, 98], [-0.5, None])
    assert [row["kind"] for row in store.to_arrow("events").to_pylist()] == ["calculation"] * 3
    assert [row["inserted"] for row in store.to_arrow("interventions", EpisodeFilter(limit=2)).to_pylist()] == [[7]] * 2
    assert store.to_arrow("annotations").column("label").to_pylist() == ["l"]


def test_an_empty_store_has_the_same_columns(store):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install 'nr-agent[export]')")
    empty = {kind: store.to_arrow(kind).schema for kind in TABLES}
    store.begin(an_episode("e", status="completed"))
    assert {kind: store.to_arrow(kind).schema for kind in TABLES} == empty


def test_more_rows_than_a_batch_come_in_order(store, monkeypatch):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install 'nr-agent[export]')")
    monkeypatch.setattr("nr_agent.store.frames._BATCH", 2)
    for number in range(7):
        store.begin(an_episode(f"e{number}", steps=[], events=[], interventions=[]))
    assert store.to_arrow().column("id").to_pylist() == [f"e{number}" for number in range(7)]


@pytest.mark.filterwarnings("default")
def test_pandas_gets_a_frame(store):
    pytest.importorskip("pandas", reason="pandas is not installed")
    store.begin(an_episode("e", status="completed", correct=True))
    frame = store.to_pandas()
    assert list(frame["id"]) == ["e"]
    assert frame["correct"].mean() == 1


def test_what_cannot_be_given_says_what_can(store, monkeypatch):
    with pytest.raises(ConfigurationError, match="no rows of 'tokens'") as caught:
        store.to_arrow("tokens")
    assert "episodes" in caught.value.hint
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError):
        store.to_arrow()


def test_the_newest_are_found_without_sorting_all_there_are(tmp_path):
    with EpisodeStore(tmp_path / "e.db") as store:
        store.begin(an_episode("e"))
        asked = []
        event.listen(store._database._engine("read"), "before_cursor_execute", lambda *given: asked.append(given[2:4]))
        assert [one.id for one in store.find(EpisodeFilter(limit=20))] == ["e"]
        found = asked.copy()
        with store._database.read() as connection:
            for statement, parameters in found:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                steps = [row[-1] for row in plan]
                if "LIMIT" in statement:
                    assert any("ix_episodes_created_at_id" in step for step in steps), steps
                    assert not [step for step in steps if "TEMP B-TREE" in step]
                else:
                    # What goes with an episode is looked up for those of the page.
                    assert not [step for step in steps if step.startswith("SCAN")], steps
