"""Unusual models, budgets, stop strings and failures: each has an end that a user would expect."""

from __future__ import annotations

import json

import pytest
from graphs_helpers import ask, words
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from nr_agent import ChatNeuReasoner
from nr_agent.graphs import Budget, create_reasoner
from nr_agent.graphs.memory import Memory
from nr_agent.graphs.reasoner import parts_of
from nr_agent.policies import AskHumanPolicy, BranchPolicy
from nr_agent.testing import ScriptedDetector, ScriptedEngine
from nr_agent.tokens import BRANCH, END_THINK, RECHECK, THINK, TURN_END

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
ARGUMENTS = json.dumps({"a": 1})
CALL = f'<tool_call>\n{{"name": "add", "arguments": {ARGUMENTS}}}\n</tool_call>'


def no_thinker(script, **options):
    return ScriptedEngine(script, missing=[THINK, END_THINK, RECHECK, BRANCH], tools=True, **options)


@pytest.mark.parametrize("said", ["", "I add.\n\n"])
def test_a_model_that_does_not_think_calls_tools(said):
    engine = no_thinker([f"{said}{CALL}{TURN_END}"])
    message = ChatNeuReasoner(engine=engine, detector=None).bind_tools([TOOL]).invoke("add 1")
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("add", {"a": 1})]
    assert message.content == said.strip() and message.response_metadata["finish_reason"] == "tool_calls"
    output = create_reasoner(no_thinker([f"{said}{CALL}{TURN_END}"]), detector=None).invoke(
        ask(), context={"tools": [TOOL]}
    )
    assert [call["args"] for call in output["messages"][-1].tool_calls] == [{"a": 1}]


def test_a_model_that_does_not_think_is_made_to_call():
    engine = no_thinker([f"{ARGUMENTS}}}\n</tool_call>{TURN_END}"])
    message = ChatNeuReasoner(engine=engine, detector=None).bind_tools([TOOL], tool_choice="any").invoke("add 1")
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("add", {"a": 1})]
    assert "reasoning_content" not in message.additional_kwargs


def test_a_fork_that_closed_its_thinking_and_lost_is_not_heard_in_the_reply():
    def script(text, seed):
        if text.endswith(BRANCH):
            return f"way 1 closes{END_THINK}" if seed == 1 else "way 2 better\n\n"
        return None if "way 2" in text else "circle"

    scores = {"circle": 0.99, "closes": 0.4}
    reasoner = create_reasoner(
        ScriptedEngine(script),
        detector=ScriptedDetector(
            lambda text: {"inter_step": max((score for word, score in scores.items() if word in text), default=0.1)}
        ),
        policies={"inter_step": BranchPolicy(back=0)},
    )
    message = ChatNeuReasoner(reasoner=reasoner, seed=0).invoke("2+2?")
    plain = reasoner.invoke(ask("2+2?"))
    assert plain["reasoning"]["interventions"][0]["kept"] == "branch-2"
    assert message.content == "The final answer is \\boxed{42}."


@pytest.mark.parametrize(
    ("stop", "content"),
    [("\n", "Four apples."), ("\n\n", "Four apples.\nThat is all."), ("That", "Four apples.")],
)
def test_the_space_before_an_answer_is_no_stop(stop, content):
    engine = ScriptedEngine(["2+2 makes four"], answer="Four apples.\nThat is all.")
    assert ChatNeuReasoner(engine=engine, detector=None).invoke("2+2?", stop=[stop]).content == content


def test_a_budget_for_any_answer_leaves_room_to_think():
    engine = ScriptedEngine(["2+2 makes four"], context=2048)
    report = create_reasoner(engine, detector=None, budget=Budget(max_answer_tokens=2048)).invoke(ask())["reasoning"]
    assert report["stop_reason"] == "finished" and report["steps"] == 1


def test_forks_share_the_budget_and_not_the_length_of_a_step(store):
    def script(text, seed):
        return "x" * 200 if text.endswith(BRANCH) else ("circle" if BRANCH not in text else None)

    reasoner = create_reasoner(
        ScriptedEngine(script),
        detector=ScriptedDetector(words),
        policies={"inter_step": BranchPolicy(width=8)},
        budget={"max_tokens": 5000},
        store=store,
    )
    report = reasoner.invoke(ask())["reasoning"]
    forks = [step for step in store.get(report["episode_id"]).steps if step.branch != "main" and BRANCH in step.text]
    assert len(forks) == 8 and {step.stop for step in forks} == {"stop_string"}
    short = reasoner.invoke(ask(), context={"budget": {"max_tokens": 800}})["reasoning"]
    forks = [step for step in store.get(short["episode_id"]).steps if step.branch != "main" and BRANCH in step.text]
    assert {step.stop for step in forks} == {"length"} and sum(len(step.ids) for step in forks) <= 800


def test_a_call_that_a_thought_only_plays_with_is_none(store):
    """A person ends the episode in the middle of a thought: nothing was called."""
    engine = ScriptedEngine([f"slip; maybe {CALL}, no, wait"], tools=True)
    reasoner = create_reasoner(
        engine,
        detector=ScriptedDetector(words),
        policies={"intra_step": AskHumanPolicy()},
        store=store,
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    reasoner.invoke(ask(), thread, context={"tools": [TOOL]})
    answered = Command(resume={"action": "answer", "answer": "7"})
    message = reasoner.invoke(answered, thread, context={"tools": [TOOL]})["messages"][-1]
    assert message.tool_calls == [] and message.content == "7"


@pytest.mark.parametrize(
    "config", [{}, {"configurable": {"thread_id": "1"}}, {"max_concurrency": 1}], ids=["plain", "thread", "one by one"]
)
def test_a_fork_that_fails_where_nobody_can_resume_leaves_nothing_open(store, config):
    def script(text, seed):
        if text.endswith(BRANCH) and seed == 2:
            raise ConnectionError("lost")
        return "way" if text.endswith(BRANCH) else "circle"

    engine = ScriptedEngine(script)
    reasoner = create_reasoner(
        engine, detector=ScriptedDetector(words), policies={"inter_step": BranchPolicy(width=3)}, store=store
    )
    with pytest.raises(ConnectionError):
        reasoner.invoke(ask(), config)
    assert engine.open_sequences == 0 and len(parts_of(reasoner).memory) == 0
    assert [summary.status for summary in store.find()] == ["failed"]


def test_many_that_are_at_work_at_once_are_all_remembered(monkeypatch):
    monkeypatch.setattr("nr_agent.graphs.memory.LIMIT", 2)
    memory = Memory(None)
    assert [memory.enter(str(number)) for number in range(4)] == [[]] * 4
    memory.leave("0")  # between two steps
    memory.enter("4")
    assert len(memory) == 5
    memory.leave("1")
    memory.lay_aside("1")
    memory.enter("5")
    assert len(memory) == 5
    monkeypatch.setattr("nr_agent.graphs.memory.LEFT_AFTER", -1.0)
    memory.enter("6")
    assert len(memory) == 5


def test_a_chat_model_is_called_as_its_engine_is():
    chat = ChatNeuReasoner(engine=ScriptedEngine(["2+2=4"], name="told"), detector=None)
    assert chat.model == "told" and chat._get_ls_params()["ls_model_name"] == "told"
    assert chat.invoke("2+2?").response_metadata["model_name"] == "told"
