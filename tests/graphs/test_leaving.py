"""Whoever leaves a run, wherever it is just then, leaves nothing open, and nothing waits for the database in a loop."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from graphs_helpers import ask, words
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained, NodeTimeoutError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, RetryPolicy, Send, TimeoutPolicy

from nr_agent import ChatNeuReasoner
from nr_agent.errors import BudgetExceededError, NRAgentError
from nr_agent.graphs import Budget, create_reasoner
from nr_agent.graphs.baseline import create_baseline
from nr_agent.policies import AskHumanPolicy, BranchPolicy, RecheckPolicy
from nr_agent.policies.baselines import SelfConsistency, Vanilla
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector, ScriptedEngine

TOLD = ["first", "slip", "better", "circle", "way", "last"]


def script(text: str, seed: int) -> str | None:
    thoughts = text.split("<think>\n")[-1]
    return next((word for word in TOLD if word not in thoughts), None)


def build(store, *, engine=None, **options):
    return create_reasoner(
        engine or ScriptedEngine(script),
        detector=ScriptedDetector(words),
        policies={"intra_step": RecheckPolicy(rollback=True), "inter_step": BranchPolicy(back=0)},
        store=store,
        **options,
    )


def inside(reasoner, **options):
    graph = StateGraph(MessagesState)
    graph.add_node("solver", reasoner, **options)
    graph.add_edge(START, "solver")
    graph.add_edge("solver", END)
    return graph.compile()


def statuses(store):
    return [summary.status for summary in store.find()]


@pytest.mark.parametrize("saver", [None, InMemorySaver()], ids=["without", "memory"])
def test_a_stream_may_be_left_at_every_event(store, saver):
    total = len(list(build(store).stream(ask(), stream_mode="custom")))
    assert total > 12
    for left in range(1, total):
        engine = ScriptedEngine(script)
        reasoner = build(store, engine=engine, checkpointer=saver)
        parts = reasoner.stream(ask(), {"configurable": {"thread_id": str(left)}}, stream_mode="custom")
        for number, _ in enumerate(parts, 1):
            if number == left:
                break
        parts.close()
        assert engine.open_sequences == 0, left
        assert "running" not in statuses(store)


def test_a_stream_of_coroutines_may_be_left_at_every_event(store):
    total = len(list(build(store).stream(ask(), stream_mode="custom")))

    async def leave(reasoner, left):
        async with aclosing(reasoner.astream(ask(), stream_mode="custom")) as parts:
            number = 0
            async for _ in parts:
                number += 1
                if number == left:
                    break

    for left in range(1, total):
        engine = ScriptedEngine(script)
        asyncio.run(leave(build(store, engine=engine), left))
        assert engine.open_sequences == 0, left
        assert "running" not in statuses(store)


async def cancel_after(seconds, work):
    task = asyncio.create_task(work)
    await asyncio.sleep(seconds)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None


@pytest.mark.parametrize("where", ["alone", "in a graph", "chat"])
def test_a_task_may_be_cancelled_at_any_time(where, store):
    """At sixty moments of a run."""
    ways = {
        "alone": lambda reasoner: reasoner.ainvoke(ask()),
        "in a graph": lambda reasoner: inside(reasoner).ainvoke(ask()),
        "chat": lambda reasoner: ChatNeuReasoner(reasoner=reasoner).ainvoke("What is 2+2?"),
    }
    finished = 0
    for number in range(60):
        engine = ScriptedEngine(script, seconds_a_token=0.0002)
        run = ways[where](build(store, engine=engine))
        finished += asyncio.run(cancel_after(number * 0.002, run)) is not None
        assert engine.open_sequences == 0, number
        assert "running" not in statuses(store), number
    assert finished < 60


def steps(store, report):
    episode = store.get(report["episode_id"])
    assert episode.status == "completed"
    return [(step.index, step.branch, step.start, step.text, step.discarded) for step in episode.steps]


@pytest.mark.parametrize("restarted", [False, True], ids=["in the process", "restarted"])
def test_an_episode_that_was_left_at_any_event_can_be_gone_on_with(restarted, store):
    undisturbed = build(store)
    total = len(list(undisturbed.stream(ask(), stream_mode="custom")))
    expected = steps(store, undisturbed.invoke(ask())["reasoning"])
    for left in range(1, total):
        saver, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}
        reasoner = build(store, checkpointer=saver)
        parts = reasoner.stream(ask(), thread, stream_mode="custom", durability="sync")
        for number, _ in enumerate(parts, 1):
            if number == left:
                break
        parts.close()
        engine = ScriptedEngine(script)
        again = build(store, engine=engine, checkpointer=saver) if restarted else reasoner
        report = again.invoke(None, thread)["reasoning"]
        assert steps(store, report) == expected, left
        assert engine.open_sequences == 0


class Dying(InMemorySaver):
    """A saver that saves so many things and no more: whoever dies then may have written more into the store."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def put(self, *args, **kwargs):
        self._count()
        return super().put(*args, **kwargs)

    def put_writes(self, *args, **kwargs):
        self._count()
        return super().put_writes(*args, **kwargs)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise SystemExit("killed")


def test_an_episode_goes_on_wherever_its_process_died(store):
    """What a node has written into the store may be ahead of what LangGraph has saved."""
    expected = steps(store, build(store).invoke(ask())["reasoning"])
    died, begun = 0, len(list(store.find()))
    for at in range(60):
        saver, thread = Dying(at), {"configurable": {"thread_id": "1"}}
        try:
            build(store, checkpointer=saver).invoke(ask(), thread, durability="sync")
        except SystemExit:
            died += 1
        else:
            break
        saver.left = 10**6
        engine = ScriptedEngine(script)
        again = build(store, engine=engine, checkpointer=saver)
        saved = saver.get_tuple(thread) is not None
        report = again.invoke(None if saved else ask(), thread, durability="sync")["reasoning"]
        assert steps(store, report) == expected, at
        assert engine.open_sequences == 0
        begun += 1
    assert died > 20
    # An episode that was begun before anything was saved is begun again: those alone are left behind.
    assert len(list(store.find())) - begun <= 4


def test_one_may_go_back_in_time_to_every_checkpoint(store):
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    reasoner = build(store, checkpointer=saver)
    report = reasoner.invoke(ask(), thread)["reasoning"]
    expected = steps(store, report)
    for state in reversed(list(reasoner.get_state_history(thread))):
        engine = ScriptedEngine(script)
        again = build(store, engine=engine, checkpointer=saver).invoke(None, state.config)["reasoning"]
        assert steps(store, again) == expected, state.next
        assert (again["episode_id"] == report["episode_id"]) == (state.metadata["step"] > 0)
        assert engine.open_sequences == 0


def test_a_run_that_is_drained_is_left_in_order_and_goes_on_later(store):
    expected = steps(store, build(store).invoke(ask())["reasoning"])
    saver, thread, control = InMemorySaver(), {"configurable": {"thread_id": "1"}}, RunControl()
    engine = ScriptedEngine(script)
    with pytest.raises(GraphDrained):
        for _ in build(store, engine=engine, checkpointer=saver).stream(
            ask(), thread, stream_mode="custom", control=control
        ):
            control.request_drain("the server shuts down")
    assert "running" not in statuses(store) and engine.open_sequences == 0
    assert steps(store, build(store, checkpointer=saver).invoke(None, thread)["reasoning"]) == expected


def test_a_run_may_be_stopped_behind_every_node(store):
    expected = steps(store, build(store).invoke(ask())["reasoning"])
    reasoner, thread = build(store, checkpointer=InMemorySaver()), {"configurable": {"thread_id": "1"}}
    output, stops = reasoner.invoke(ask(), thread, interrupt_after="*"), 0
    while reasoner.get_state(thread).next:
        output, stops = reasoner.invoke(None, thread, interrupt_after="*"), stops + 1
    assert steps(store, output["reasoning"]) == expected and stops > 10


@pytest.mark.parametrize("way", ["threads", "coroutines"])
def test_several_that_run_side_by_side_ask_each_for_itself(way, store):
    engine = ScriptedEngine(lambda text: None if "better" in text else ("better" if "slip" in text else "slip"))
    reasoner = create_reasoner(
        engine, detector=ScriptedDetector(words), policies={"intra_step": AskHumanPolicy()}, store=store
    )
    graph = StateGraph(MessagesState)
    graph.add_node("solver", reasoner)
    graph.add_conditional_edges(START, lambda _: [Send("solver", ask(f"item {n}")) for n in range(3)], ["solver"])
    compiled, thread = graph.compile(checkpointer=InMemorySaver()), {"configurable": {"thread_id": "1"}}

    def run(given, **options):
        if way == "threads":
            return compiled.invoke(given, thread, **options)
        return asyncio.run(compiled.ainvoke(given, thread, **options))

    paused = run(ask("three of them"), version="v2")
    assert statuses(store) == ["waiting"] * 3
    answers = dict(zip([one.id for one in paused.interrupts], ["continue", "stop", "recheck"], strict=True))
    assert sum(message.type == "ai" for message in run(Command(resume=answers))["messages"]) == 3
    assert statuses(store) == ["completed"] * 3 and engine.open_sequences == 0


@pytest.mark.parametrize("policy", [TimeoutPolicy(run_timeout=0.3), TimeoutPolicy(idle_timeout=0.3)])
@pytest.mark.parametrize("called", [False, True], ids=["as the node", "in the node"])
def test_a_time_out_of_the_node_around_it_ends_the_episode(policy, called, store):
    async def solver(state):
        return await reasoner.ainvoke(state)

    engine = ScriptedEngine(["x" * 100_000], context=200_000, seconds_a_token=0.002)
    reasoner = build(store, engine=engine, budget=Budget(max_step_tokens=10**5, max_tokens=10**5))
    with pytest.raises(NodeTimeoutError):
        asyncio.run(inside(solver if called else reasoner, timeout=policy).ainvoke(ask()))
    assert statuses(store) == ["interrupted"] and engine.open_sequences == 0


@pytest.mark.parametrize("baseline", [Vanilla(), SelfConsistency(samples=3)])
def test_a_baseline_stops_when_its_task_is_cancelled(baseline, store):
    engine = ScriptedEngine(["x" * 100_000], context=200_000, seconds_a_token=0.002)
    reasoner = create_baseline(engine, baseline, store=store)
    assert asyncio.run(cancel_after(0.3, reasoner.ainvoke(ask()))) is None
    assert statuses(store) == ["interrupted"] and engine.open_sequences == 0


def test_a_failing_fork_fails_the_episode_though_those_beside_it_are_cancelled(store):
    def forking(text: str, seed: int) -> str | None:
        if text.endswith("<|branch|>"):
            if seed == 1:
                raise LookupError("lost")
            return "x" * 5000
        return None if "<|branch|>" in text else "circle"

    engine = ScriptedEngine(forking, seconds_a_token=0.001)
    with pytest.raises(LookupError):
        asyncio.run(build(store, engine=engine, budget=Budget(max_step_tokens=4000)).ainvoke(ask()))
    assert statuses(store) == ["failed"]


class ShyStore(EpisodeStore):
    """Notes who calls it inside of an event loop, where the database would hold everybody else up."""

    def __getattribute__(self, name: str):
        if name in ("begin", "add", "discard", "finish", "get", "find", "delete", "flush"):
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                pass
            else:
                super().__getattribute__("caught").append(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("how", ["ends", "fails", "is cancelled", "chat", "chat is cancelled", "baseline"])
def test_nothing_waits_for_the_database_in_an_event_loop(how):
    store = ShyStore.in_memory()
    store.caught = []

    def failing(text: str) -> str:
        raise LookupError("lost")

    slow = ScriptedEngine(["x" * 100_000], context=200_000, seconds_a_token=0.002)
    engine = {"fails": ScriptedEngine(failing)}.get(how, slow if "cancelled" in how else ScriptedEngine(script))
    reasoner = create_baseline(engine, Vanilla(), store=store) if how == "baseline" else build(store, engine=engine)
    run = ChatNeuReasoner(engine=engine, store=store).ainvoke("q") if "chat" in how else reasoner.ainvoke(ask())
    if "cancelled" in how:
        assert asyncio.run(cancel_after(0.2, run)) is None
    elif how == "fails":
        with pytest.raises(LookupError):
            asyncio.run(run)
    else:
        asyncio.run(run)
    assert store.caught == []
    assert "running" not in statuses(store) and len(statuses(store)) == 1


def test_errors_of_ours_are_not_tried_again_by_a_graph_around_it(store):
    tried = []

    def endless(text: str) -> str:
        tried.append(text)
        return "on and on"

    reasoner = build(store, engine=ScriptedEngine(endless), budget=Budget(max_steps=2), exit_behavior="error")
    with pytest.raises(BudgetExceededError):
        inside(reasoner, retry_policy=RetryPolicy(initial_interval=0.01)).invoke(ask())
    assert len(tried) == 2 and issubclass(NRAgentError, RuntimeError)
