"""The same run over every saver, every durability, in threads and coroutines, alone and in a graph of somebody else's.

And what a kill leaves behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest
from graphs_helpers import ask, words
from langchain_core.messages import AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command
from typing_extensions import TypedDict

from nr_agent.graphs import Budget, create_reasoner
from nr_agent.policies import AskHumanPolicy, BranchPolicy, RecheckPolicy
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector, ScriptedEngine

THREAD = {"configurable": {"thread_id": "1"}}
KINDS = ["recheck", "branch", "ask_human", "stop"]
TOLD = ["slip", "better", "circle", "way", "enough"]


@dataclass
class Foreign:
    """The context of somebody else's graph, with a name that is ours, too."""

    domain: int = 3


class Outer(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    events: str
    reasoning: dict[str, Any]


def scores(text: str) -> dict[str, Any]:
    return {level: np.float32(score) for level, score in words(text).items()}


def reasoner(store, saver, asked=None):
    """Thinks what it is told, and writes down what the model was asked for."""

    def script(text: str, seed: int) -> str | None:
        if asked is not None:
            asked.append((text, seed))
        thoughts = text.split("<think>\n")[-1]
        return next((word for word in TOLD if word not in thoughts), None)

    return create_reasoner(
        ScriptedEngine(script),
        detector=ScriptedDetector(scores),
        policies={
            "intra_step": RecheckPolicy(),
            "inter_step": BranchPolicy(back=0),
            "instance": AskHumanPolicy(),
        },
        store=store,
        checkpointer=saver,
    )


def embedded(store, saver, asked=None):
    """The same as a node."""
    graph = StateGraph(Outer, Foreign)
    graph.add_node("solver", reasoner(store, None, asked))
    graph.add_edge(START, "solver")
    graph.add_edge("solver", END)
    return graph.compile(checkpointer=saver)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def place(request, tmp_path):
    """Where checkpoints are: a kind, and what it is opened with."""
    return find_place(request, tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def lasting_place(request, tmp_path):
    """A place that outlives a process."""
    return find_place(request, tmp_path)


def find_place(request, tmp_path):
    if request.param == "postgresql":
        return request.param, request.getfixturevalue("postgres_url")
    return request.param, str(tmp_path / "checkpoints.db")


@contextmanager
def open_saver(place):
    kind, url = place
    if kind == "memory":
        yield InMemorySaver()
    elif kind == "sqlite":
        with SqliteSaver.from_conn_string(url) as saver:
            yield saver
    else:
        from langgraph.checkpoint.postgres import PostgresSaver

        with PostgresSaver.from_conn_string(url) as saver:
            saver.setup()
            yield saver


@asynccontextmanager
async def open_async_saver(place):
    kind, url = place
    if kind == "memory":
        yield InMemorySaver()
    elif kind == "sqlite":
        async with AsyncSqliteSaver.from_conn_string(url) as saver:
            yield saver
    else:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        async with AsyncPostgresSaver.from_conn_string(url) as saver:
            await saver.setup()
            yield saver


def run(build, place, durability, store, asked):
    with open_saver(place) as saver:
        paused = build(store, saver, asked).invoke(given(build), THREAD, durability=durability, version="v2")
        # Another reasoner over the same checkpoints and episodes: its engine knows nothing.
        resumed = Command(resume={"action": "stop"})
        return paused.interrupts, build(store, saver, asked).invoke(resumed, THREAD, durability=durability)


async def arun(build, place, durability, store, asked):
    async with open_async_saver(place) as saver:
        paused = await build(store, saver, asked).ainvoke(given(build), THREAD, durability=durability, version="v2")
        resumed = Command(resume={"action": "stop"})
        return paused.interrupts, await build(store, saver, asked).ainvoke(resumed, THREAD, durability=durability)


def given(build):
    return ask() if build is reasoner else {**ask(), "events": "mine"}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("way", ["threads", "coroutines"])
@pytest.mark.parametrize("build", [reasoner, embedded], ids=["alone", "embedded"])
def test_every_remedy_and_a_person_come_to_the_same_everywhere(build, place, durability, way, store):
    asked = []
    if way == "threads":
        interrupts, output = run(build, place, durability, store, asked)
    else:
        interrupts, output = asyncio.run(arun(build, place, durability, store, asked))
    report = output["reasoning"]
    episode = store.get(report["episode_id"])
    assert len(interrupts) == 1 and report["stop_reason"] == "human" and report["answer"] == "42"
    assert [item["kind"] for item in report["interventions"]] == KINDS
    assert all(isinstance(event["score"], float) for event in report["events"])
    assert len(list(store.find())) == 1 and episode.status == "completed"
    assert [step.index for step in episode.steps] == sorted({step.index for step in episode.steps})
    kept = [step.text for step in episode.kept if step.kind == "think"]
    assert [word for word in TOLD if any(word in text for text in kept)] == TOLD
    assert len(asked) == len(set(asked)), "something was thought twice"
    assert len(output["messages"]) == 2 and output.get("events", "mine") == "mine"


def test_two_hundred_steps_cost_at_most_two_kilobytes_each(tmp_path, store):
    """Everything that LangGraph saves: checkpoints with their metadata, and writes."""

    def size(steps: int) -> int:
        budget = Budget(max_tokens=10**6, max_steps=10**4)
        engine = ScriptedEngine(["a thought of some length that is not long"] * steps, context=10**6)
        with SqliteSaver.from_conn_string(str(tmp_path / f"{steps}.db")) as saver:
            graph = create_reasoner(
                engine, detector=ScriptedDetector(words), store=store, budget=budget, checkpointer=saver
            )
            assert graph.invoke(ask(), THREAD, durability="sync")["reasoning"]["steps"] == steps
            query = "select count(*), sum(length(checkpoint) + length(metadata)) from checkpoints"
            number, checkpoints = saver.conn.execute(query).fetchone()
            assert number >= steps
            # The answer's message has all thoughts; it is written once, behind the last step, and saved once.
            query = "select sum(length(value)) from writes where channel not in ('messages', 'reasoning')"
            (writes,) = saver.conn.execute(query).fetchone()
            (end,) = saver.conn.execute("select checkpoint from checkpoints order by checkpoint_id desc").fetchone()
        return checkpoints - len(end) + writes

    grown = (size(210) - size(10)) / 200
    assert grown <= 2048


KILLED = """
import os, signal, sys, threading
if sys.argv[1].startswith("postgresql"):
    from langgraph.checkpoint.postgres import PostgresSaver as Base
else:
    from langgraph.checkpoint.sqlite import SqliteSaver as Base
from nr_agent.graphs import create_reasoner
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector, ScriptedEngine

saved = threading.Event()

class Saver(Base):
    def put_writes(self, config, writes, task_id, task_path=""):
        super().put_writes(config, writes, task_id, task_path)
        if any(channel == "candidates" and value for channel, value in writes):
            saved.set()

def script(text, seed):
    if text.endswith("<|branch|>"):
        if seed == 2:
            assert saved.wait(30)
            os.kill(os.getpid(), signal.SIGKILL)
        return f"way {seed}"
    return None if "<|branch|>" in text else "circle"

scores = lambda text: {"inter_step": 0.99 if "circle" in text else 0.1}
with Saver.from_conn_string(sys.argv[1]) as saver:
    saver.setup()
    reasoner = create_reasoner(
        ScriptedEngine(script), detector=ScriptedDetector(scores), store=EpisodeStore(sys.argv[2]), checkpointer=saver
    )
    reasoner.invoke({"messages": [("user", "2+2?")]}, {"configurable": {"thread_id": "1"}}, durability="sync")
"""


def test_killed_in_mid_branch_only_the_fork_that_died_is_thought_again(lasting_place, tmp_path, request):
    kind, checkpoints = lasting_place
    episodes = str(tmp_path / "episodes.db") if kind == "sqlite" else request.getfixturevalue("new_database")()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, checkpoints, episodes], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    thought = []

    def rest(text: str, seed: int) -> str | None:
        if text.endswith("<|branch|>"):
            thought.append(seed)
            return f"way {seed}"
        return None if "<|branch|>" in text else "circle"

    with EpisodeStore(episodes) as store, open_saver(lasting_place) as saver:
        engine = ScriptedEngine(rest)
        graph = create_reasoner(engine, detector=ScriptedDetector(words), store=store, checkpointer=saver)
        report = graph.invoke(None, THREAD)["reasoning"]
        episode = store.get(report["episode_id"])
        assert len(list(store.find())) == 1
    assert thought == [2] and engine.open_sequences == 0
    assert episode.status == "completed" and report["stop_reason"] == "finished"
    ways = [step.text for step in episode.steps if "way" in step.text]
    assert sorted(ways) == ["<|branch|>way 1\n\n", "<|branch|>way 2\n\n"]
    assert [item["kept"] is not None for item in report["interventions"]] == [True]


def test_what_langgraph_does_not_know_is_blocked_in_these_tests(caplog):
    serde = InMemorySaver().serde
    assert serde.loads_typed(serde.dumps_typed({"a": Foreign()})) != {"a": Foreign()}
    assert "Blocked deserialization" in caplog.text
    caplog.clear()


def test_matrix_holds_where_unknown_types_are_only_warned_about():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "everywhere and sqlite"],
        env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": "false"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "12 passed" in done.stdout
