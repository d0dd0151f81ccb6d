"""Wrong parts, settings and replies: each is refused where it is given, with what to do in the second line."""

from __future__ import annotations

from typing import Any

import pytest
from graphs_helpers import ask, asks_about_slips, words
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from nr_agent import ChatNeuReasoner, Sampling, as_tool
from nr_agent.errors import ConfigurationError, NRAgentError, PolicyError, ToolsUnsupportedError
from nr_agent.graphs import HumanAnswer, create_reasoner
from nr_agent.graphs.baseline import create_baseline
from nr_agent.policies import AskHumanPolicy, Policies, RecheckPolicy, Rule
from nr_agent.policies.baselines import Vanilla
from nr_agent.testing import ScriptedDetector, ScriptedEngine

THREAD = {"configurable": {"thread_id": "1"}}


def engine(**options):
    return ScriptedEngine(["slip", "b"], **options)


def asking(store, saver, **options):
    return create_reasoner(
        engine(**options),
        detector=ScriptedDetector(words),
        policies={"intra_step": AskHumanPolicy()},
        store=store,
        checkpointer=saver,
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"engine": None}, "engine is None"),
        ({"engine": ScriptedEngine}, "load_engine"),
        ({"engine": ChatNeuReasoner()}, "engine is"),
        ({"detector": "nano"}, "load_detector"),
        ({"detector": ScriptedDetector}, "load_detector"),
        ({"store": "episodes.db"}, r"EpisodeStore\('episodes.db'\)"),
        ({"budget": 3}, "budget is 3"),
        ({"budget": {"max_token": 3}}, "max_token.*\n.*max_tokens"),
        ({"sampling": {"temprature": 1}}, "temprature"),
        ({"sampling": {"temperature": -1}}, "temperature is -1"),
        ({"seed": None}, "whole number"),
        ({"seed": "7"}, "whole number"),
        ({"mode": "tokens"}, "'token'"),
        ({"exit_behavior": "raise"}, "'error'"),
        ({"policies": None}, "pack's name"),
        ({"policies": [RecheckPolicy()]}, "'intra_step': RecheckPolicy"),
        ({"policies": RecheckPolicy()}, "'intra_step': RecheckPolicy"),
        ({"policies": {"intra_step": RecheckPolicy}}, "no policy"),
        ({"policies": {"intra": RecheckPolicy()}}, "allowed: intra_step"),
    ],
)
def test_a_wrong_part_is_refused_before_anything_is_made(wrong, says):
    given = {"engine": engine(), **wrong}
    with pytest.raises(NRAgentError, match=says) as caught:
        create_reasoner(given.pop("engine"), **given)
    assert caught.value.hint


@pytest.mark.parametrize(
    "told",
    [
        3,
        ["seed"],
        {"sed": 3},
        {"seed": "x"},
        {"seed": True},
        {"domain": 3},
        {"reference": 4},
        {"problem_seed": "x"},
        {"metadata": [1]},
        {"stop": 3},
        {"stop": [5]},
        {"stop": ["boxed", None]},
        {"tools": "f"},
        {"tool_choice": 3},
        {"budget": 3},
        {"budget": {"max_steps": 0}},
        {"sampling": "hot"},
        {"sampling": {"temperature": "hot"}},
        {"sampling": {"top_p": 7}},
        {"sampling": {"top_k": -1}},
        {"sampling": {"repetition_penalty": 0}},
    ],
)
def test_a_wrong_setting_of_a_run_is_refused_before_there_is_an_episode(told, store):
    with pytest.raises(ConfigurationError) as caught:
        create_reasoner(engine(), store=store).invoke(ask(), {"configurable": {"nr_agent": told}})
    assert caught.value.hint and list(store.find()) == []


@pytest.mark.parametrize("choice", ["any", "x"])
def test_a_choice_without_tools_is_refused_before_there_is_an_episode(choice, nano, store):
    reasoner = create_reasoner(nano, detector=None, store=store)
    with pytest.raises(ToolsUnsupportedError, match=r"a tool has to be called, and there is none\n.*tools"):
        reasoner.invoke(ask(), {"configurable": {"nr_agent": {"tool_choice": choice}}})
    assert list(store.find()) == []


def test_dicts_of_what_differs_and_single_texts_are_taken(store):
    reasoner = create_reasoner(engine(), store=store, budget={"max_steps": 1}, sampling={"temperature": 0})
    report = reasoner.invoke(ask(), {"configurable": {"nr_agent": {"stop": "boxed"}}})["reasoning"]
    episode = store.get(report["episode_id"])
    assert report["steps"] == 1 and episode.settings["sampling"]["temperature"] == 0
    assert episode.steps[-1].text.endswith("The final answer is \\boxed")


@pytest.mark.parametrize("baseline", ["vanilla", Vanilla, None])
def test_what_is_no_baseline_is_refused(baseline):
    with pytest.raises(ConfigurationError, match=r"Deer\(\)"):
        create_baseline(engine(), baseline)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Policies({}, max_interventions=-1),
        lambda: Policies({}, refractory=-1),
        lambda: Rule(RecheckPolicy(), min_score=2),
        lambda: Rule(RecheckPolicy(), min_score=0.9, max_score=0.1),
    ],
)
def test_limits_without_sense_are_refused(wrong):
    with pytest.raises(PolicyError):
        wrong()


def test_a_policy_that_raises_is_named():
    class Broken:
        name = "broken"

        def decide(self, context):
            return 1 / 0

    reasoner = create_reasoner(engine(), detector=ScriptedDetector(words), policies={"intra_step": Broken()})
    with pytest.raises(ZeroDivisionError) as caught:
        reasoner.invoke(ask())
    assert "in the policy 'broken', on an event in step 1" in caught.value.__notes__


@pytest.mark.parametrize("reply", ["continue", {"action": "continue"}, HumanAnswer(action="continue")])
def test_a_person_may_answer_with_a_word_a_dict_or_our_type(reply, store):
    saver = InMemorySaver()
    asking(store, saver).invoke(ask(), THREAD)
    assert asking(store, saver).invoke(Command(resume=reply), THREAD)["reasoning"]["answer"] == "42"


@pytest.mark.parametrize(("number", "written"), [(6, "6"), (0.5, "0.5")])
def test_a_person_may_answer_with_a_number(number, written, store):
    reasoner = asking(store, InMemorySaver())
    reasoner.invoke(ask(), THREAD)
    reply = Command(resume={"action": "answer", "answer": number})
    assert reasoner.invoke(reply, THREAD)["reasoning"]["answer"] == written


@pytest.mark.parametrize(
    "reply",
    ["panic", 3, {"answer": "x"}, {"action": "answer", "answer": "  "}, {"action": "answer", "answer": "\ud800"}],
)
def test_a_wrong_reply_is_refused_and_the_question_stays_open(reply, store):
    reasoner = asking(store, InMemorySaver())
    reasoner.invoke(ask(), THREAD)
    with pytest.raises(ValueError, match="HumanAnswer"):
        reasoner.invoke(Command(resume=reply), THREAD)
    assert reasoner.invoke(Command(resume="stop"), THREAD)["reasoning"]["stop_reason"] == "human"


def test_a_question_that_nobody_could_ever_answer_is_an_error(store):
    for run in (lambda: asking(store, None).invoke(ask(), THREAD), lambda: as_tool(asking(store, None)).invoke("2+2?")):
        with pytest.raises(ConfigurationError, match="cannot ask"):
            run()
    with pytest.raises(ConfigurationError, match="cannot ask"):
        as_tool(asking(store, InMemorySaver())).invoke({"question": "2+2?"}, THREAD)
    assert [summary.status for summary in store.find()].count("failed") == 2


def test_a_tool_that_cannot_ask_says_so_whatever_it_was_asked_before(store):
    """Its last answer is none to this question."""

    def script(text):
        return None if "\n\n" in text.split("<think>")[-1] else ("slip" if "hard" in text else "fine")

    reasoner = asks_about_slips(script, store)
    solver = as_tool(reasoner)
    assert solver.invoke({"question": "An easy one?"}, THREAD) == "42"
    with pytest.raises(ConfigurationError, match="cannot ask"):
        solver.invoke({"question": "A hard one?"}, THREAD)
    assert sorted(summary.status for summary in store.find()) == ["completed", "interrupted"]


def test_a_tool_asks_through_the_agent_that_calls_it(store):
    """The agent's graph is interrupted, and goes on with the tool's answer; nothing is thought twice."""
    asked = []

    def script(text):
        asked.append(text)
        return None if "b" in text.split("<think>")[-1] else ("b" if "slip" in text else "slip")

    def build():
        reasoner = create_reasoner(
            ScriptedEngine(script),
            detector=ScriptedDetector(words),
            policies={"intra_step": AskHumanPolicy()},
            store=store,
        )
        call = {"type": "tool_call", "id": "1", "name": "solver", "args": {"question": "2+2?"}}
        graph = StateGraph(MessagesState)
        graph.add_node("agent", lambda state: {"messages": [AIMessage("", tool_calls=[call])]})
        graph.add_node("tools", ToolNode([as_tool(reasoner, name="solver")]))
        graph.add_edge(START, "agent")
        graph.add_edge("agent", "tools")
        graph.add_edge("tools", END)
        return graph.compile(checkpointer=saver)

    saver = InMemorySaver()
    paused = build().invoke({"messages": [("user", "How much is 2+2?")]}, THREAD, version="v2")
    assert paused.interrupts[0].value["actions"][0] == "continue"
    message = build().invoke(Command(resume="continue"), THREAD)["messages"][-1]
    assert message.content == "42" and [one["kind"] for one in message.artifact["interventions"]] == ["ask_human"]
    assert len(asked) == len(set(asked)) and len(list(store.find())) == 1


def around(node, state):
    graph = StateGraph(state)
    graph.add_node("reason", node)
    graph.add_edge(START, "reason")
    graph.add_edge("reason", END)
    return graph.compile(name="around")


class Desk(MessagesState):
    reasoning: dict[str, Any]


@pytest.mark.parametrize("given", ["nano", None, lambda state: state, around(lambda state: {}, MessagesState)])
def test_what_is_no_reasoner_becomes_no_tool(given):
    with pytest.raises(ConfigurationError, match="no reasoner"):
        as_tool(given)


def test_a_graph_around_a_reasoner_becomes_a_tool_if_the_report_comes_out_of_it(nano):
    reasoner = create_reasoner(nano, detector=None)
    question = "Solve for x: 12*x + 7 = 91"
    assert as_tool(around(reasoner, Desk)).invoke(question) == as_tool(reasoner).invoke(question) == "7"
    with pytest.raises(ConfigurationError, match=r"'around' is no reasoner.*\n.*`reasoning`"):
        as_tool(around(reasoner, MessagesState))


def test_the_chat_model_refuses_calls_without_sense_and_takes_one_stop():
    chat = ChatNeuReasoner(engine=engine(), stop="boxed")
    assert chat.invoke("2+2?").content == "The final answer is \\"
    assert chat.invoke("2+2?", stop="answer").content == "The final"
    for wrong in ({"max_tokens": 0}, {"temperature": -1}):
        with pytest.raises(ConfigurationError):
            chat.invoke("2+2?", **wrong)
    with pytest.raises(ConfigurationError, match="names no tool"):
        ChatNeuReasoner(engine=engine(tools=True)).bind_tools([{"name": "f", "parameters": {}}], tool_choice={"x": 1})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("seed", "x", "seed is 'x'"),
        ("seed", 1.5, "seed is 1.5"),
        ("max_tokens", "x", "max_tokens is 'x'"),
        ("timeout", "x", "max_seconds"),
        ("temperature", "x", "temperature is 'x'"),
    ],
)
def test_a_setting_of_a_call_that_is_no_number_is_refused_before_there_is_an_episode(name, value, says, nano, store):
    with pytest.raises(ConfigurationError, match=says) as caught:
        ChatNeuReasoner(engine=nano, detector=None, store=store).invoke("2+2?", **{name: value})
    assert caught.value.hint and list(store.find()) == []


@pytest.mark.parametrize("wrong", [5, "nano", ScriptedEngine])
def test_what_is_no_engine_becomes_no_chat_model(wrong):
    with pytest.raises(ConfigurationError, match=r"engine is .*\n.*load_engine"):
        ChatNeuReasoner(engine=wrong).invoke("2+2?")


def test_sampling_is_checked_wherever_it_is_made():
    with pytest.raises(ConfigurationError, match="top_p is 2"):
        Sampling(top_p=2)
