"""Budgets end an episode with what it has; they never raise unless that was asked for."""

from __future__ import annotations

import asyncio

import pytest
from graphs_helpers import ask, words
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from nr_agent import ChatNeuReasoner
from nr_agent.errors import BudgetExceededError
from nr_agent.graphs import Budget, as_tool, create_reasoner
from nr_agent.policies import BranchPolicy, EarlyStopPolicy, Policies, RecheckPolicy, load_policies
from nr_agent.testing import ScriptedDetector, ScriptedEngine
from nr_agent.tokens import RECHECK, THINK

LOOP = "round and round"
ANEW = {"recheck": RecheckPolicy(), "rollback": RecheckPolicy(rollback=True), "branch": BranchPolicy(width=3)}
"""The remedies behind which a step is begun anew."""


def endless(text: str) -> str:
    return LOOP


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(max_tokens=60), "token_budget"),
        (Budget(max_steps=3), "step_budget"),
        (Budget(max_seconds=1e-9), "time_budget"),
    ],
)
def test_spent_budget_closes_the_thinking_and_answers(budget, reason, solve):
    run = solve(ScriptedEngine(endless), budget=budget)
    assert run.report["stop_reason"] == reason and run.report["answer"] == "42"
    assert run.episode.status == "completed"


def test_token_budget_is_kept_to_the_token(solve):
    run = solve(ScriptedEngine(endless), budget=Budget(max_tokens=40))
    assert run.report["usage"]["thinking"] == 40


@pytest.mark.parametrize("policy", ANEW.values(), ids=ANEW)
def test_slip_at_the_end_of_the_token_budget_is_seen_and_left_alone(policy, solve):
    engine = ScriptedEngine([f"slip {'x' * 32}", "and on"])  # with its blank line the step has 39 tokens
    run = solve(engine, words, policies={"intra_step": policy}, budget=Budget(max_tokens=40))
    assert len(run.report["events"]) == 1 and run.report["interventions"] == []
    assert run.report["usage"]["thinking"] == 40 and run.report["usage"]["discarded"] == 0
    assert (run.report["stop_reason"], run.report["answer"]) == ("token_budget", "42")


@pytest.mark.parametrize("policy", ANEW.values(), ids=ANEW)
def test_no_remedy_costs_more_than_the_token_budget(policy, solve):
    """What is inserted counts, and what is given up: of all forks together."""
    policies = Policies({"intra_step": policy}, max_interventions=99, refractory=0)
    done = set()
    for most in range(40, 260, 4):
        run = solve(ScriptedEngine(lambda text: "slip"), words, policies=policies, budget=Budget(max_tokens=most))
        assert sum(len(step.ids) for step in run.episode.steps if step.kind == "think") == most
        assert run.report["stop_reason"] == "token_budget"
        done.add(bool(run.report["interventions"]))
    assert done == {False, True}


def test_full_context_ends_with_an_answer_inside_it(solve):
    run = solve(ScriptedEngine(endless, context=400))
    assert run.report["stop_reason"] == "context" and run.report["answer"] == "42"
    assert len(run.episode.ids) <= 400


def test_context_without_room_to_think_still_answers(solve):
    run = solve(ScriptedEngine(endless, context=90), budget=Budget(max_answer_tokens=1000))
    assert run.report["stop_reason"] == "context" and run.report["steps"] == 0
    assert len(run.episode.ids) <= 90


def test_answer_that_is_cut_falls_back_on_what_the_thinking_stated(solve):
    run = solve(
        ScriptedEngine(["So the answer is 17."], answer="\n\n\n\n\n\n\n\n\n\n"), budget=Budget(max_answer_tokens=5)
    )
    assert run.report["answer"] == "17"
    assert run.report["stop_reason"] == "token_budget"


def test_budget_can_be_an_error_with_the_partial_report(store):
    reasoner = create_reasoner(ScriptedEngine(endless), budget=Budget(max_steps=2), exit_behavior="error", store=store)
    with pytest.raises(BudgetExceededError, match="step_budget") as caught:
        reasoner.invoke(ask())
    assert caught.value.report["answer"] == "42"
    assert store.get(caught.value.report["episode_id"]).status == "completed"


@pytest.mark.parametrize("what", ["plain", "slip", "circle", "mixed"])
@pytest.mark.parametrize("limit", range(4, 30))
def test_any_recursion_limit_ends_with_an_answer(what, limit, store):
    parts = ["slip", "circle", "a", "b", "c"]
    script = (lambda text: parts[text.count("\n\n") % 5]) if what == "mixed" else (lambda text: what)
    policies = Policies(load_policies("default").on, max_interventions=99)
    engine = ScriptedEngine(script)
    reasoner = create_reasoner(engine, detector=ScriptedDetector(words), policies=policies, store=store)
    report = reasoner.invoke(ask(), {"recursion_limit": limit})["reasoning"]
    assert (report["stop_reason"], report["answer"]) == ("step_budget", "42")
    assert engine.open_sequences == 0


def test_stop_right_behind_a_recheck_ends_with_an_answer_at_any_recursion_limit(store):
    """Both take a superstep of their own."""

    def script(text):
        thoughts = text.split(THINK)[-1]
        if RECHECK in thoughts:
            return "enough"
        return "slip" if thoughts.count("\n\n") == 2 else "a"

    policies = {"intra_step": RecheckPolicy(), "instance": EarlyStopPolicy()}
    ended = set()
    for limit in range(4, 31):
        engine = ScriptedEngine(script)
        reasoner = create_reasoner(engine, detector=ScriptedDetector(words), policies=policies, store=store)
        report = reasoner.invoke(ask(), {"recursion_limit": limit})["reasoning"]
        assert report["answer"] == "42" and engine.open_sequences == 0, limit
        ended.add((report["stop_reason"], *(one["kind"] for one in report["interventions"])))
    assert ended == {("step_budget",), ("early_stop", "recheck", "stop")}


def node_of(reasoner):
    graph = StateGraph(MessagesState)
    graph.add_node("solver", reasoner)
    graph.add_edge(START, "solver")
    return graph.compile()


def called(reasoner):
    return RunnableLambda(reasoner.invoke, reasoner.ainvoke)


def tool_of(reasoner):
    @tool
    def think(question: str, config: RunnableConfig) -> str:
        """Think about a question, under the limit of whoever asks."""
        return reasoner.invoke(ask(question), config)["messages"][-1].content

    return RunnableLambda(lambda state: {"messages": [think.invoke({"question": "2+2?"}, {"recursion_limit": 25})]})


@pytest.mark.parametrize("what", ["plain", "mixed"])
@pytest.mark.parametrize("way", ["threads", "coroutines"])
@pytest.mark.parametrize("limit", [None, 25])
@pytest.mark.parametrize("wrapped", [lambda reasoner: reasoner, node_of, called, tool_of])
def test_pipe_of_runnables_ends_with_an_answer(wrapped, limit, way, what, store):
    parts = ["slip", "circle", "a", "b", "c"]
    script = (lambda text: parts[text.count("\n\n") % 5]) if what == "mixed" else endless
    policies = Policies(load_policies("default").on, max_interventions=99)
    engine = ScriptedEngine(script)
    reasoner = create_reasoner(engine, detector=ScriptedDetector(words), policies=policies, store=store)
    pipe = RunnableLambda(ask) | wrapped(reasoner) | RunnableLambda(lambda state: state["messages"][-1])
    config = None if limit is None else {"recursion_limit": limit}
    found = pipe.invoke("2+2?", config) if way == "threads" else asyncio.run(pipe.ainvoke("2+2?", config))
    assert getattr(found, "content", found) == "42"
    (summary,) = store.find()
    episode = store.get(summary.id)
    assert episode.stop_reason == "step_budget" and sum(step.kind == "think" for step in episode.steps) >= 12
    assert engine.open_sequences == 0


def test_pipe_with_the_chat_model_has_its_whole_budget():
    chat = ChatNeuReasoner(engine=ScriptedEngine(endless), budget=Budget(max_steps=40))
    message = (RunnableLambda(str) | chat).invoke("2+2?")
    assert message.response_metadata["nr_agent"]["steps"] == 40


def test_as_tool_has_the_whole_budget_and_hands_over_the_report():
    reasoner = create_reasoner(ScriptedEngine(endless), budget=Budget(max_steps=40))
    solver = as_tool(reasoner, name="solver")
    call = {"type": "tool_call", "id": "1", "name": "solver", "args": {"question": "2+2?"}}
    message = solver.invoke(call)
    assert message.content == "42" and message.artifact["steps"] == 40
    assert message.artifact["stop_reason"] == "step_budget"


def test_as_tool_is_asynchronous_too():
    solver = as_tool(create_reasoner(ScriptedEngine(["a"])))
    assert asyncio.run(solver.ainvoke({"question": "2+2?"})) == "42"
