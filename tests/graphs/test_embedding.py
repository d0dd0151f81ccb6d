"""In other people's graphs, over the stream, and in coroutines."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import pytest
from graphs_helpers import ask, words
from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel
from typing_extensions import TypedDict

from nr_agent.graphs import ReasonerContext, as_tool, create_reasoner
from nr_agent.graphs.stream import StreamEvent
from nr_agent.testing import ScriptedDetector, ScriptedEngine

ROOT = Path(__file__).parents[2]


class Outer(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    events: str
    reasoning: dict[str, Any]


@dataclass
class Foreign:
    domain: int = 3


def parent(reasoner, context_schema=None):
    graph = StateGraph(Outer, context_schema)
    graph.add_node("solver", reasoner)
    graph.add_edge(START, "solver")
    graph.add_edge("solver", END)
    return graph.compile()


class Typed(TypedDict):
    domain: int


class Modelled(BaseModel):
    seed: str = "theirs"


class Falsy(dict):
    """A context that is there, and false."""


@pytest.mark.parametrize("how", ["node", "called in a node", "node of a node"])
@pytest.mark.parametrize("way", ["threads", "coroutines"])
@pytest.mark.parametrize(
    ("schema", "context"),
    [
        (None, None),
        (Foreign, None),
        (Foreign, Foreign()),
        (Typed, {"domain": 4}),
        (Modelled, Modelled()),
        (Modelled, {"seed": "theirs"}),
        (dict, Falsy()),
    ],
)
def test_parent_with_its_own_context_and_keys_is_left_alone(schema, context, way, how, store):
    reasoner = create_reasoner(ScriptedEngine(["slip", "b"]), detector=ScriptedDetector(words), store=store)
    outer = parent(reasoner, schema)
    if how == "called in a node":
        outer = parent(RunnableLambda(reasoner.invoke, reasoner.ainvoke), schema)
    elif how == "node of a node":
        outer = parent(outer, schema)
    config = {"configurable": {"nr_agent": {"domain": "finance"}}}
    given = {**ask(), "events": "mine"}
    if way == "threads":
        output = outer.invoke(given, config, context=context)
    else:
        output = asyncio.run(outer.ainvoke(given, config, context=context))
    assert output["events"] == "mine" and len(output["messages"]) == 2
    episode = store.get(output["reasoning"]["episode_id"])
    assert episode.problem.domain == "finance" and episode.seed == 0


def test_own_context_reaches_the_reasoner_as_a_subgraph(store):
    outer = parent(create_reasoner(ScriptedEngine(["b"]), store=store), ReasonerContext)
    output = outer.invoke({**ask(), "events": ""}, context=ReasonerContext(domain="law"))
    assert store.get(output["reasoning"]["episode_id"]).problem.domain == "law"


def test_only_messages_and_reasoning_come_out():
    output = create_reasoner(ScriptedEngine(["a"])).invoke(ask())
    assert set(output) == {"messages", "reasoning"}


@pytest.mark.parametrize("way", ["threads", "coroutines"])
def test_a_tool_that_is_called_outside_of_a_graph_sees_nothing_but_its_question(way, store):
    """As its description promises, also on one thread."""
    reasoner = create_reasoner(ScriptedEngine(["a"]), store=store, checkpointer=InMemorySaver())
    solver, thread = as_tool(reasoner), {"configurable": {"thread_id": "1"}}
    for question in ("2+2?", "And 3+3?"):
        given = {"question": question}
        found = solver.invoke(given, thread) if way == "threads" else asyncio.run(solver.ainvoke(given, thread))
        assert found == "42"
    assert [store.get(summary.id).settings["turns"] for summary in store.find()] == [1, 1]


def streamed(graph, mode, way):
    given = {**ask(), "events": ""}
    if way == "threads":
        return [part["data"] for part in graph.stream(given, stream_mode=mode, subgraphs=True, version="v2")]

    async def follow():
        parts = graph.astream(given, stream_mode=mode, subgraphs=True, version="v2")
        return [part["data"] async for part in parts]

    return asyncio.run(follow())


@pytest.mark.parametrize("how", ["alone", "node", "called in a node", "node of a node"])
@pytest.mark.parametrize("way", ["threads", "coroutines"])
def test_the_stream_keeps_its_contract_however_deep_the_reasoner_is(way, how, store):
    told = ["slip", "b", "circle", "c", "enough"]
    script = lambda text: next((word for word in told if word not in text), None)  # noqa: E731
    reasoner = create_reasoner(ScriptedEngine(script), detector=ScriptedDetector(words), store=store)
    graph = {
        "alone": reasoner,
        "node": parent(reasoner),
        "called in a node": parent(RunnableLambda(reasoner.invoke, reasoner.ainvoke)),
        "node of a node": parent(parent(reasoner)),
    }[how]
    events = streamed(graph, "custom", way)
    forms = {get_args(get_type_hints(form)["type"])[0]: set(get_type_hints(form)) for form in get_args(StreamEvent)}
    for event in events:
        assert set(event) == forms[event["type"]]
        assert json.loads(json.dumps(event)) == event
    assert events[0]["type"] == "nr.open" and events[-1]["type"] == "nr.stop"
    assert {event["type"] for event in events} == set(forms)
    episode = store.get(events[0]["episode_id"])
    texts = {
        event["index"]: "".join(part["text"] for part in event["parts"])
        for event in events
        if event["type"] == "nr.step"
    }
    assert texts == {step.index: step.text for step in episode.steps[1:]}
    # Of all that was generated, on every branch and beside it, only the answer is a message.
    messages = [message for message, _ in streamed(graph, "messages", way) if message.type.startswith("ai")]
    assert {message.content for message in messages} == {"42"} and len({message.id for message in messages}) == 1


def test_without_subgraphs_a_parent_sees_only_its_own(store):
    outer = parent(create_reasoner(ScriptedEngine(["a"]), store=store))
    parts = outer.stream({**ask(), "events": ""}, stream_mode=["custom", "updates"], version="v2")
    assert [part["type"] for part in parts] == ["updates"]


def test_importing_the_graph_loads_neither_torch_nor_a_database():
    code = (
        "import sys, nr_agent.graphs, nr_agent.testing; print([m for m in ('torch', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_the_drawing_is_the_one_on_the_page():
    drawing = create_reasoner(ScriptedEngine([])).get_graph().draw_mermaid(with_styles=False)
    assert f"```mermaid\n{drawing.strip()}\n```" in (ROOT / "docs" / "langgraph.md").read_text(), drawing


def test_coroutine_and_thread_come_to_the_same(store):
    def build():
        script = lambda text, seed: ["slip", "b", "circle", "c", None][min(text.count("\n\n"), 4)]  # noqa: E731
        return create_reasoner(ScriptedEngine(script), detector=ScriptedDetector(words), store=store, seed=3)

    sync = build().invoke(ask())
    other = asyncio.run(build().ainvoke(ask()))
    assert plain(store, sync) == plain(store, other)
    assert sync["messages"][-1].content == other["messages"][-1].content


def plain(store, output) -> Any:
    """An episode without its ids and places in time."""
    episode = store.get(output["reasoning"]["episode_id"])
    steps = [(step.index, step.kind, step.branch, step.ids, step.discarded) for step in episode.steps]
    interventions = [(i.kind, i.step, i.position, i.inserted, i.kept, i.outcome) for i in episode.interventions]
    return steps, interventions, [(e.level, e.step, e.score) for e in episode.events], output["reasoning"]["usage"]


def test_cancelled_task_stops_the_engine_and_marks_the_episode(store):
    engine = ScriptedEngine(["x" * 100_000], context=200_000, seconds_a_token=0.002)
    events: list[Any] = []

    async def main() -> None:
        async def follow() -> None:
            async for part in create_reasoner(engine, store=store).astream(ask(), stream_mode="custom", version="v2"):
                events.append(part["data"])  # noqa: PERF401 - it is cancelled on the way

        task = asyncio.create_task(follow())
        while not (events and engine.open_sequences):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert store.get(events[0]["episode_id"]).status == "interrupted"
    assert engine.open_sequences == 0
    writers = [thread for thread in threading.enumerate() if thread.name.startswith("scripted-engine")]
    for thread in writers:
        thread.join(timeout=5)
    assert not any(thread.is_alive() for thread in writers)


def test_many_runs_at_once_do_not_mix(store):
    script = lambda text: None if "I was asked" in text else f"I was asked {text.split('item ')[1].split('<')[0]}"  # noqa: E731
    engine = ScriptedEngine(script, answer=lambda text: "\\boxed{" + text.split("item ")[1].split("<")[0] + "}")
    reasoner = create_reasoner(engine, store=store)
    outputs = reasoner.batch([ask(f"item {n}") for n in range(8)])
    assert [output["reasoning"]["answer"] for output in outputs] == [str(n) for n in range(8)]
    assert engine.open_sequences == 0


async def _collect(found):
    return [output async for _, output in found]


BATCHES = {
    "batch": lambda reasoner, *given: reasoner.batch(*given),
    "abatch": lambda reasoner, *given: asyncio.run(reasoner.abatch(*given)),
    "batch_as_completed": lambda reasoner, *given: [output for _, output in reasoner.batch_as_completed(*given)],
    "abatch_as_completed": lambda reasoner, *given: asyncio.run(_collect(reasoner.abatch_as_completed(*given))),
}


@pytest.mark.parametrize("ways", BATCHES.values(), ids=BATCHES)
def test_a_batch_is_not_cut_at_langgraph_s_own_limit_and_keeps_a_caller_s(store, ways):
    engine = ScriptedEngine(lambda text: None if text.count("step") == 60 else "step")
    reasoner = create_reasoner(engine, store=store)
    inputs = [ask("a"), ask("b")]
    for config in (None, {"tags": ["x"]}, [{"tags": ["x"]}, {}]):
        reports = [output["reasoning"] for output in ways(reasoner, inputs, config)]
        assert [(report["stop_reason"], report["steps"] >= 60) for report in reports] == [("finished", True)] * 2
    cut = ways(reasoner, inputs, {"recursion_limit": 30})
    assert [output["reasoning"]["stop_reason"] for output in cut] == ["step_budget"] * 2


@pytest.mark.parametrize("ways", BATCHES.values(), ids=BATCHES)
def test_a_batch_keeps_the_limit_that_the_reasoner_was_configured_with(store, ways):
    def ends(output):
        return output["reasoning"]["stop_reason"], output["reasoning"]["steps"]

    reasoner = create_reasoner(ScriptedEngine(lambda text: "step"), store=store).with_config(recursion_limit=12)
    usual, longer = (ends(reasoner.invoke(ask(), config)) for config in (None, {"recursion_limit": 20}))
    assert usual[0] == "step_budget" and 0 < usual[1] < longer[1] < 20
    inputs = [ask("a"), ask("b")]
    for config in (None, {"tags": ["x"]}, [{"tags": ["x"]}, {}]):
        assert [ends(output) for output in ways(reasoner, inputs, config)] == [usual] * 2
    assert [ends(output) for output in ways(reasoner, inputs, {"recursion_limit": 20})] == [longer] * 2
