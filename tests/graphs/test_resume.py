"""Interrupts, restarts, and what a checkpoint holds."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from graphs_helpers import ask, words
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import is_invalid_resume
from langgraph.types import Command
from pydantic import ValidationError

from nr_agent.errors import ConfigurationError
from nr_agent.graphs import Budget, create_reasoner
from nr_agent.policies import AskHumanPolicy, RecheckPolicy
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector, ScriptedEngine
from nr_agent.tokens import BRANCH, IN_DETAIL, RECHECK, REDO

THREAD = {"configurable": {"thread_id": "1"}}


@pytest.fixture(params=["memory", "sqlite"])
def saver(request, tmp_path):
    if request.param == "memory":
        yield InMemorySaver()
    else:
        with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
            yield saver


def asking(engine, store, saver):
    return create_reasoner(
        engine,
        detector=ScriptedDetector(words),
        policies={"intra_step": AskHumanPolicy(), "instance": AskHumanPolicy(question="Enough?")},
        store=store,
        checkpointer=saver,
    )


def script(text: str) -> str | None:
    if text.endswith((RECHECK, IN_DETAIL, REDO, BRANCH)):
        return "better"
    return "slip" if "slip" not in text and "better" not in text else None


@pytest.mark.parametrize(
    ("reply", "kinds", "reason"),
    [
        ({"action": "continue"}, ["ask_human"], "finished"),
        ({"action": "recheck"}, ["ask_human", "recheck"], "finished"),
        ({"action": "rollback"}, ["ask_human", "recheck"], "finished"),
        ({"action": "branch"}, ["ask_human", "branch"], "finished"),
        ({"action": "stop"}, ["ask_human", "stop"], "human"),
        ({"action": "answer", "answer": "7"}, ["ask_human"], "human"),
    ],
)
def test_person_decides_how_it_goes_on(reply, kinds, reason, saver, store):
    calls = []

    def counted(text):
        calls.append(text)
        return script(text)

    reasoner = asking(ScriptedEngine(counted), store, saver)
    paused = reasoner.invoke(ask(), THREAD, version="v2")
    (interrupt,) = paused.interrupts
    assert "calculation" in interrupt.value["question"] and interrupt.value["event"]["step"] == 1
    assert interrupt.response_schema["properties"]["action"]["enum"][0] == "continue"
    thought_before = len(calls)
    report = reasoner.invoke(Command(resume=reply), THREAD)["reasoning"]
    assert [item["kind"] for item in report["interventions"]] == kinds
    assert report["stop_reason"] == reason
    assert report["answer"] == ("7" if reply["action"] == "answer" else "42")
    assert calls[:thought_before].count(calls[0]) == 1 and calls[thought_before:].count(calls[0]) <= 1


def test_wrong_reply_leaves_the_question_open(saver, store):
    reasoner = asking(ScriptedEngine(script), store, saver)
    reasoner.invoke(ask(), THREAD)
    for reply in ({"action": "panic"}, {"action": "answer"}, {"action": "stop", "answer": "7"}):
        with pytest.raises(ValidationError) as caught:
            reasoner.invoke(Command(resume=reply), THREAD)
        assert is_invalid_resume(caught.value)
    assert reasoner.invoke(Command(resume={"action": "continue"}), THREAD)["reasoning"]["answer"] == "42"


def test_new_process_goes_on_from_the_store(store, tmp_path):
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
        asking(ScriptedEngine(script), store, saver).invoke(ask(), THREAD)
        engine = ScriptedEngine(script)  # knows nothing of the sequence
        report = asking(engine, store, saver).invoke(Command(resume={"action": "rollback"}), THREAD)["reasoning"]
    episode = store.get(report["episode_id"])
    assert report["answer"] == "42" and report["interventions"][1]["outcome"] == "unclear"
    assert [step.text for step in episode.kept if step.kind == "think"] == [f"{RECHECK}{IN_DETAIL}better\n\n"]
    assert engine.open_sequences == 0


def test_resume_with_another_store_says_which_one_it_needs(saver, store):
    asking(ScriptedEngine(script), store, saver).invoke(ask(), THREAD)
    with pytest.raises(ConfigurationError, match="resume with the store"):
        asking(ScriptedEngine(script), EpisodeStore.in_memory(), saver).invoke(Command(resume="continue"), THREAD)
    left = {"configurable": {"thread_id": "2"}}
    thinking = create_reasoner(ScriptedEngine(["a", "b", "c"]), store=store, checkpointer=saver)
    for number, _ in enumerate(thinking.stream(ask(), left, stream_mode="custom", durability="sync")):
        if number == 2:
            break
    elsewhere = create_reasoner(ScriptedEngine([]), store=EpisodeStore.in_memory(), checkpointer=saver)
    with pytest.raises(ConfigurationError, match="resume with the store"):
        elsewhere.invoke(None, left)


def test_resume_with_another_model_names_both_and_spoils_nothing(saver, store):
    """Its tokens would be read as other words."""
    asking(ScriptedEngine(script), store, saver).invoke(ask(), THREAD)
    left = {"configurable": {"thread_id": "2"}}
    thinking = create_reasoner(ScriptedEngine(["a", "b", "c"]), store=store, checkpointer=saver)
    for number, _ in enumerate(thinking.stream(ask(), left, stream_mode="custom", durability="sync")):
        if number == 2:
            break
    other = create_reasoner(ScriptedEngine(["a", "b", "c"], name="other"), store=store, checkpointer=saver)
    says = r"begun with scripted of fingerprint scripted:scripted, and this reasoner's other has scripted:other\n.*anew"
    for given, thread in ((Command(resume="continue"), THREAD), (None, left)):
        with pytest.raises(ConfigurationError, match=says):
            other.invoke(given, thread)
    again = create_reasoner(ScriptedEngine(["a", "b", "c"]), store=store, checkpointer=saver)
    assert again.invoke(None, left)["reasoning"]["answer"] == "42"


def test_crash_in_a_fork_thinks_only_that_fork_again(store):
    thought, crashes, saved = [], ["once"], threading.Event()

    def branching(text, seed):
        if text.endswith(BRANCH):
            if seed == 2 and crashes:
                crashes.clear()
                # LangGraph keeps what the other fork thought only if it is saved before the superstep fails.
                assert saved.wait(10)
                raise ConnectionError("lost")
            thought.append(seed)
            return f"way {seed}"
        return None if BRANCH in text else "circle"

    class Saver(InMemorySaver):
        def put_writes(self, config, writes, task_id, task_path=""):
            super().put_writes(config, writes, task_id, task_path)
            if any(channel == "candidates" and value for channel, value in writes):
                saved.set()

    reasoner = create_reasoner(
        ScriptedEngine(branching, context=2000),
        detector=ScriptedDetector(words),
        store=store,
        checkpointer=Saver(),
    )
    with pytest.raises(ConnectionError):
        reasoner.invoke(ask(), THREAD, durability="sync")
    report = reasoner.invoke(None, THREAD)["reasoning"]
    episode = store.get(report["episode_id"])
    assert sorted(thought) == [1, 2]
    assert report["stop_reason"] == "finished" and episode.status == "completed"
    assert len([step for step in episode.steps if "way" in step.text]) == 2


def test_second_problem_on_a_thread_begins_anew(saver, store):
    reasoner = create_reasoner(ScriptedEngine(["So the answer is 1"]), store=store, checkpointer=saver)
    first = reasoner.invoke(ask(), THREAD)
    second = reasoner.invoke(ask("And 3+3?"), THREAD)
    assert first["reasoning"]["episode_id"] != second["reasoning"]["episode_id"]
    assert store.get(second["reasoning"]["episode_id"]).problem.text == "And 3+3?"
    assert len(second["messages"]) == 4 and second["reasoning"]["steps"] == 1


def test_checkpoints_grow_by_the_same_for_every_step(tmp_path):
    def size(steps: int, length: int) -> int:
        path = tmp_path / f"{steps}-{length}.db"
        engine = ScriptedEngine(["x" * length] * steps, context=10**6)
        with SqliteSaver.from_conn_string(str(path)) as saver:
            reasoner = create_reasoner(
                engine,
                detector=ScriptedDetector(words),
                budget=Budget(max_tokens=10**6, max_step_tokens=10**4),
                checkpointer=saver,
            )
            reasoner.invoke(ask(), THREAD, durability="sync")
        with sqlite3.connect(path) as connection:
            (checkpoints,) = connection.execute("select sum(length(checkpoint)) from checkpoints").fetchone()
            (writes,) = connection.execute("select sum(length(value)) from writes").fetchone()
        connection.close()
        return checkpoints + writes

    few, some, many = size(60, 10), size(120, 10), size(180, 10)
    assert abs((many - some) - (some - few)) < 0.05 * (some - few)
    # Longer thoughts cost nothing on the way: they are in the message at the end, as a write and in a checkpoint.
    assert size(120, 2000) - some < 2.1 * 120 * 2000


STRICT = """
import logging, sqlite3, sys, warnings
warnings.simplefilter("error")
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from nr_agent.graphs import create_reasoner
from nr_agent.policies import AskHumanPolicy
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector, ScriptedEngine

logging.basicConfig(level=logging.WARNING)
scores = lambda text: {"intra_step": 0.9 if "slip" in text else 0.1, "inter_step": 0.99 if "circle" in text else 0.1}
store, engine = EpisodeStore.in_memory(), ScriptedEngine(["a", "circle", "b", "slip", "c"])
config = {"configurable": {"thread_id": "1"}}
with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    from nr_agent.policies import BranchPolicy
    policies = {"intra_step": AskHumanPolicy(), "inter_step": BranchPolicy()}
    options = dict(detector=ScriptedDetector(scores), policies=policies, store=store, checkpointer=saver)
    create_reasoner(engine, **options).invoke({"messages": [("user", "2+2?")]}, config)
    report = create_reasoner(engine, **options).invoke(Command(resume={"action": "recheck"}), config)["reasoning"]
print(report["answer"], *[item["kind"] for item in report["interventions"]])
"""


def test_strict_serialisation_knows_everything_in_the_state(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", STRICT, str(tmp_path / "strict.db")],
        env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["42", "branch", "ask_human", "recheck"]
    assert done.stderr == ""


def test_rollback_that_runs_twice_rolls_back_once(store):
    """The node after the rollback crashes; the resumed run finds the sequence as its state has it."""
    crashes = ["once"]

    def crashing(text):
        if text.endswith(IN_DETAIL):
            if crashes:
                crashes.clear()
                raise ConnectionError("lost")
            return "better"
        return None if "better" in text else ("slip" if "first" in text else "first")

    reasoner = create_reasoner(
        ScriptedEngine(crashing),
        detector=ScriptedDetector(words),
        policies={"intra_step": RecheckPolicy(rollback=True)},
        store=store,
        checkpointer=InMemorySaver(),
    )
    with pytest.raises(ConnectionError):
        reasoner.invoke(ask(), THREAD)
    report = reasoner.invoke(None, THREAD)["reasoning"]
    kept = [step.text for step in store.get(report["episode_id"]).kept if step.kind == "think"]
    assert kept == ["first\n\n", f"{RECHECK}{IN_DETAIL}better\n\n"]
    assert len(report["interventions"]) == 1


def test_episodes_that_nobody_comes_back_to_do_not_pile_up(store, monkeypatch):
    monkeypatch.setattr("nr_agent.graphs.memory.LIMIT", 3)
    engine = ScriptedEngine(script)
    reasoner = asking(engine, store, InMemorySaver())
    threads = [{"configurable": {"thread_id": str(number)}} for number in range(6)]
    for thread in threads:
        reasoner.invoke(ask(), thread)
    assert engine.open_sequences == 3
    report = reasoner.invoke(Command(resume={"action": "recheck"}), threads[0])["reasoning"]
    assert report["answer"] == "42" and store.get(report["episode_id"]).status == "completed"


def test_failure_after_a_restart_is_recorded_too(store, tmp_path):
    def broken(text):
        raise RuntimeError("no power")

    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
        first = asking(ScriptedEngine(script), store, saver)
        episode_id = first.invoke(ask(), THREAD, version="v2").interrupts[0].value["episode_id"]
        with pytest.raises(RuntimeError, match="no power"):
            asking(ScriptedEngine(broken), store, saver).invoke(Command(resume={"action": "continue"}), THREAD)
    assert store.get(episode_id).status == "failed" and "no power" in store.get(episode_id).error
