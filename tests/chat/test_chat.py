"""The chat model's own promises: what a message holds, how it comes, and what cannot get into a prompt."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading

import pytest
from chat_helpers import tool_engine
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)
from langgraph.graph import END, START, MessagesState, StateGraph

from nr_agent import Budget, ChatNeuReasoner, EpisodeStore, create_reasoner
from nr_agent.errors import ConfigurationError, ProblemError, ToolsUnsupportedError
from nr_agent.graphs.conversation import to_template
from nr_agent.graphs.replies import read_reply
from nr_agent.policies import AskHumanPolicy, RecheckPolicy
from nr_agent.testing import ScriptedDetector, ScriptedEngine

QUESTION = "Solve for x: 12*x + 7 = 91"
CIRCLE = {"inter_step": 0.99}


def scores(text):
    return {"intra_step": 0.9 if "slip" in text else 0.1, "inter_step": 0.99 if "circle" in text else 0.1}


def watched(script, **options):
    return ChatNeuReasoner(engine=ScriptedEngine(script), detector=ScriptedDetector(scores), **options)


def gather(chunks):
    total = None
    for chunk in chunks:
        total = chunk if total is None else total + chunk
    return total


def plain(message):
    """A message without what differs from run to run."""
    facts = message.response_metadata["nr_agent"]
    for event in facts["events"]:
        event.pop("id", None)
    about = {key: value for key, value in message.response_metadata.items() if key != "nr_agent"}
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    kinds = [(item["kind"], item["kept"], item["outcome"]) for item in facts["interventions"]]
    return (
        message.content,
        message.additional_kwargs,
        message.usage_metadata,
        about,
        calls,
        kinds,
        (facts["answer"], facts["steps"], len(facts["events"])),
    )


@pytest.fixture
def chat(nano, nano_detector):
    return ChatNeuReasoner(engine=nano, detector=nano_detector)


@pytest.mark.parametrize("seed", [0, 3])
def test_chunks_add_up_to_the_message_that_invoking_gives_in_threads_and_coroutines(chat, seed):
    async def astream():
        return gather([chunk async for chunk in chat.astream(QUESTION, seed=seed)])

    invoked = chat.invoke(QUESTION, seed=seed)
    streamed = message_chunk_to_message(gather(chat.stream(QUESTION, seed=seed)))
    others = [asyncio.run(chat.ainvoke(QUESTION, seed=seed)), message_chunk_to_message(asyncio.run(astream()))]
    assert all(plain(message) == plain(invoked) for message in (streamed, *others))
    assert invoked.content and invoked.additional_kwargs["reasoning_content"]


def test_a_message_has_the_answer_the_thoughts_the_usage_and_what_happened():
    store = EpisodeStore.in_memory()
    message = watched(["a slip", "better"], store=store).invoke("2+2?")
    assert message.content == "The final answer is \\boxed{42}."
    assert message.additional_kwargs["reasoning_content"] == "a slip\n\n<|recheck|>In detail: better"
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]
    facts = message.response_metadata["nr_agent"]
    episode = store.get(facts["episode_id"])
    assert facts["answer"] == "42" and message.response_metadata["model_name"] == "scripted"
    assert [event["kind"] for event in facts["events"]] == ["calculation"]
    assert [item["kind"] for item in facts["interventions"]] == ["recheck"]
    usage = message.usage_metadata
    assert usage["input_tokens"] == episode.usage.prompt and usage["output_tokens"] == episode.usage.output
    assert usage["output_token_details"]["reasoning"] == episode.usage.output - episode.usage.answer > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_thoughts_come_step_by_step_and_before_the_answer():
    chunks = list(watched(["one", "two", "three"]).stream("2+2?"))
    thoughts = [chunk.additional_kwargs["reasoning_content"] for chunk in chunks if chunk.additional_kwargs]
    assert thoughts == ["one", "\n\ntwo", "\n\nthree"]
    assert [bool(chunk.content) for chunk in chunks] == [False, False, False, True, False]


def test_of_branches_only_the_chosen_one_is_heard():
    def branching(text, seed):
        if text.endswith("<|branch|>"):
            return f"way {seed}"
        return None if "way" in text else ("circle" if "first" in text else "first")

    chat = watched(branching)
    message = chat.invoke("2+2?")
    (branch,) = message.response_metadata["nr_agent"]["interventions"]
    heard = message.additional_kwargs["reasoning_content"]
    assert branch["kind"] == "branch" and branch["kept"] in branch["branches"]
    assert heard.count("way") == 1 and f"way {branch['kept'][-1]}" in heard
    assert plain(message) == plain(message_chunk_to_message(gather(chat.stream("2+2?"))))


def test_answer_ends_before_a_stop_string_and_thoughts_do_not():
    chat = ChatNeuReasoner(engine=ScriptedEngine(["Stop here: and on"], answer="It is 4. Stop here: no more"))
    message = chat.invoke("2+2?", stop=["Stop here", "never"])
    assert message.content == "It is 4." and "Stop here: and on" in message.additional_kwargs["reasoning_content"]
    own = ChatNeuReasoner(engine=ScriptedEngine(["a"], answer="abcdef"), stop=["cd"])
    assert own.invoke("2+2?").content == "ab"
    assert own.invoke("2+2?", stop=["e"]).content == "abcd"


def test_seed_and_temperature_are_the_calls_own(chat):
    free = chat.bind(temperature=1.5, top_p=1.0)
    texts = [free.invoke(QUESTION, seed=seed).additional_kwargs["reasoning_content"] for seed in (1, 2, 3, 1)]
    assert texts[0] == texts[3] and len(set(texts)) > 1
    greedy = chat.bind(temperature=0)
    assert plain(greedy.invoke(QUESTION, seed=1))[0] == plain(greedy.invoke(QUESTION, seed=2))[0]


def test_max_tokens_bounds_thinking_and_answer_together(chat):
    with pytest.raises(ConfigurationError, match=r"max_tokens is 5, .*\n.*give \d+ or more") as caught:
        chat.invoke(QUESTION, max_tokens=5)
    least = int(re.search(r"\d+", caught.value.hint)[0])
    with pytest.raises(ConfigurationError, match="or more"):
        chat.invoke(QUESTION, max_tokens=least - 1)
    for most in (least, least + 1, 20, 60):
        message = chat.invoke(QUESTION, max_tokens=most, seed=5)
        assert message.usage_metadata["output_tokens"] <= most and message.content


def thought(store, message):
    """Tokens of a message's thinking."""
    steps = store.get(message.response_metadata["nr_agent"]["episode_id"]).steps
    return sum(len(step.ids) for step in steps if step.kind == "think")


def test_max_tokens_do_not_lift_the_budget_of_a_reasoner():
    store = EpisodeStore.in_memory()
    engine = ScriptedEngine(lambda text: "round and round", answer="It is 4.")
    budget = Budget(max_tokens=100, max_answer_tokens=16)
    reasoner = create_reasoner(engine, store=store, budget=budget)
    for most in (None, 400):
        message = ChatNeuReasoner(reasoner=reasoner, max_tokens=most).invoke("2+2?")
        assert thought(store, message) == 100 and message.content == "It is 4."


def test_max_tokens_are_the_budget_of_a_model_without_a_reasoner():
    store = EpisodeStore.in_memory()
    chat = ChatNeuReasoner(engine=ScriptedEngine(lambda text: "round and round"), store=store)
    usual, more = chat.invoke("2+2?"), chat.invoke("2+2?", max_tokens=2000)
    assert thought(store, usual) == Budget().max_tokens < thought(store, more)
    assert more.usage_metadata["output_tokens"] <= 2000


def test_conversation_of_several_turns_and_results_of_tools_is_read(chat):
    messages = [
        SystemMessage("You are short."),
        HumanMessage("Solve for x: 2*x = 4"),
        AIMessage("2", additional_kwargs={"reasoning_content": "secret thought"}),
        ToolMessage("42", tool_call_id="1", name="calculator"),
        HumanMessage(QUESTION),
    ]
    prompt = chat._parts().engine.codec.decode(chat._parts().engine.codec.render(to_template(messages)))
    assert "You are short." in prompt and "42" in prompt and "secret thought" not in prompt
    assert chat.get_num_tokens_from_messages(messages) == chat.invoke(messages).usage_metadata["input_tokens"]


def test_a_message_that_was_streamed_is_read_as_what_it_has_become():
    asked, chat = [HumanMessage("2+2?"), AIMessage("four")], watched(["a"])
    streamed = [HumanMessageChunk("2+2?"), AIMessageChunk("fo") + AIMessageChunk("ur")]
    assert to_template([asked[0], streamed[1]]) == to_template(streamed) == to_template(asked)
    assert chat.get_num_tokens_from_messages(streamed) == chat.get_num_tokens_from_messages(asked)


def test_a_tool_is_called_its_result_read_and_then_there_is_an_answer():
    def weather(location: str) -> str:
        """The weather at a place."""
        return f"sunny in {location}"

    chat = ChatNeuReasoner(engine=tool_engine()).bind_tools([weather])
    asked = HumanMessage("How is the weather?")
    called = chat.invoke([asked])
    (call,) = called.tool_calls
    assert (call["name"], call["args"], called.content) == ("weather", {}, "")
    assert called.response_metadata["finish_reason"] == "tool_calls"
    answered = chat.invoke([asked, called, ToolMessage("sunny", tool_call_id=call["id"])])
    assert answered.content == "It is so, and you know it." and not answered.tool_calls


@pytest.mark.parametrize(
    ("written", "calls", "broken", "text"),
    [
        ('Look: <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call> so', [("f", {"a": 1})], 0, "Look:\nso"),
        (
            '<tool_call>{"name": "f", "arguments": {}}</tool_call>\n<tool_call>{"name": "g"}</tool_call>',
            [("f", {}), ("g", {})],
            0,
            "",
        ),
        (
            '<tool_call>\n{"name": "f", "arguments": {"a": "</tool_call><tool_call>"}}\n</tool_call>',
            [("f", {"a": "</tool_call><tool_call>"})],
            0,
            "",
        ),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', [("f", {"a": 1})], 0, ""),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}}', [("f", {"a": 1})], 0, ""),
        ('<tool_call>{"name": "f", "argum</tool_call>', [], 1, ""),
        ("<tool_call>[1]</tool_call>", [], 1, ""),
    ],
)
def test_calls_are_read_in_hermes_form(written, calls, broken, text):
    engine = ScriptedEngine(["a"], answer=written, tools=True)
    message = (
        ChatNeuReasoner(engine=engine).bind_tools([{"name": "f", "description": "d", "parameters": {}}]).invoke("q")
    )
    assert [(call["name"], call["args"]) for call in message.tool_calls] == calls
    assert len(message.invalid_tool_calls) == broken and message.content == text


def test_without_tools_a_call_is_text():
    written = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    message = ChatNeuReasoner(engine=ScriptedEngine(["a"], answer=written, tools=True)).invoke("q")
    assert message.content == written and not message.tool_calls


def test_a_template_without_tools_says_so_before_weights_are_loaded():
    chat = ChatNeuReasoner(model="nano")
    with pytest.raises(ToolsUnsupportedError, match="knows no tools"):
        chat.bind_tools([{"name": "f", "description": "d", "parameters": {}}])
    assert chat._made is None
    with pytest.raises(ToolsUnsupportedError, match="'h' cannot be chosen"):
        ChatNeuReasoner(engine=tool_engine()).bind_tools([{"name": "f", "parameters": {}}], tool_choice="h")


def test_wrong_settings_are_refused():
    chat = watched(["a"])
    with pytest.raises(ValueError, match="temprature"):
        ChatNeuReasoner(temprature=1)
    with pytest.raises(ConfigurationError, match="'logprobs'"):
        chat.invoke("q", logprobs=True)
    with pytest.raises(ConfigurationError, match="not other"):
        chat.invoke("q", model="other")
    with pytest.raises(ProblemError, match="text only"):
        chat.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}])])
    with pytest.raises(ProblemError, match="lone surrogate"):
        chat.invoke([AIMessage("\ud800"), HumanMessage("q")])
    with pytest.raises(ConfigurationError, match="no reasoner"):
        ChatNeuReasoner(reasoner="nano").invoke("q")


def test_a_person_cannot_be_asked_through_a_chat_model():
    engine = ScriptedEngine(["slip", "b"])
    with pytest.raises(ConfigurationError, match="cannot ask"):
        ChatNeuReasoner(
            engine=engine, detector=ScriptedDetector(scores), policies={"intra_step": AskHumanPolicy()}
        ).invoke("q")
    assert engine.open_sequences == 0


def test_left_streams_leave_nothing_open_and_cancelled_runs_stop():
    engine, store = ScriptedEngine(["one", "two", "three"]), EpisodeStore.in_memory()
    stream = ChatNeuReasoner(engine=engine, store=store).stream("q")
    next(stream)
    stream.close()
    (episode,) = store.find()
    assert store.get(episode.id).status == "interrupted" and engine.open_sequences == 0

    slow = ScriptedEngine(["x" * 100_000], context=200_000, seconds_a_token=0.002)

    async def main():
        task = asyncio.create_task(ChatNeuReasoner(engine=slow).ainvoke("q"))
        while not any(thread.name.startswith("scripted-engine") for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert slow.open_sequences == 0


def test_without_a_store_of_its_own_it_keeps_no_episode():
    chat = watched(["a"])
    chat.invoke("q")
    assert list(chat._parts().store.find()) == []


def test_in_a_graphs_node_events_pass_through_and_the_message_comes_once():
    chat = watched(["slip", "b"])
    graph = StateGraph(MessagesState)
    graph.add_node("think", lambda state: {"messages": [chat.invoke(state["messages"])]})
    graph.add_edge(START, "think")
    graph.add_edge("think", END)
    events, messages = [], []
    given = {"messages": [("user", "2+2?")]}
    for part in graph.compile().stream(given, stream_mode=["custom", "messages"], version="v2"):
        (events if part["type"] == "custom" else messages).append(part["data"])
    assert events[0]["type"] == "nr.open" and events[-1]["type"] == "nr.stop"
    assert {"nr.failure", "nr.intervention", "nr.step"} <= {event["type"] for event in events}
    answers = [chunk.content for chunk, _ in messages if chunk.content]
    assert answers == ["The final answer is \\boxed{42}."]


def test_a_reasoner_of_ones_own_is_taken_with_all_that_it_has():
    store = EpisodeStore.in_memory()
    reasoner = create_reasoner(
        ScriptedEngine(["slip", "b"]),
        detector=ScriptedDetector(scores),
        policies={"intra_step": RecheckPolicy(rollback=True)},
        store=store,
        budget=Budget(max_steps=9),
    )
    message = ChatNeuReasoner(reasoner=reasoner).invoke("q")
    facts = message.response_metadata["nr_agent"]
    assert store.get(facts["episode_id"]).status == "completed"
    assert facts["interventions"][0]["rolled_back"] > 0


def test_many_at_once_do_not_mix():
    script = lambda text: None if "asked" in text else f"asked {text.split('item ')[1].split('<')[0]}"  # noqa: E731
    engine = ScriptedEngine(script, answer=lambda text: "item " + text.split("item ")[1].split("<")[0])
    messages = ChatNeuReasoner(engine=engine).batch([f"item {n}" for n in range(6)])
    assert [message.content for message in messages] == [f"item {n}" for n in range(6)]


@pytest.mark.parametrize("options", [{"keep_text": False}, {"redact": lambda text: text.replace("42", "[number]")}])
def test_the_reply_is_the_models_whatever_the_store_keeps(tmp_path, options):
    with EpisodeStore(tmp_path / "e.db", **options) as store:
        engine = ScriptedEngine(["6*7=42"], answer="It is \\boxed{42}.")
        said = ChatNeuReasoner(engine=engine, store=store).invoke("6*7?")
        kept = store.get(said.response_metadata["nr_agent"]["episode_id"])
    assert said.content == "It is \\boxed{42}."
    assert "42" not in "".join(step.text for step in kept.steps)


def test_constructing_loads_nothing():
    code = "import sys; from nr_agent import ChatNeuReasoner as C; C(model='nano'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


def test_a_model_that_spells_its_closing_is_read_as_well():
    engine, store = ScriptedEngine(["a"], answer="It is 4.", missing=["</think>"]), EpisodeStore.in_memory()
    message = ChatNeuReasoner(engine=engine, store=store).invoke("q")
    assert message.content == "It is 4."
    episode = store.get(message.response_metadata["nr_agent"]["episode_id"])
    turn = "".join(step.text for step in episode.kept if step.kind == "answer")
    assert read_reply(turn, engine.codec, episode.id).text == "It is 4."


def test_strings_that_end_the_answer_are_strings_before_anything_is_thought(chat):
    with pytest.raises(ConfigurationError, match="a list of texts"):
        chat.invoke(QUESTION, stop=[5])
    with pytest.raises(ConfigurationError, match="a list of texts"):
        chat._reasoner().invoke({"messages": [("user", QUESTION)]}, {"configurable": {"nr_agent": {"stop": [5]}}})
    assert not list(chat._parts().store.find())


@pytest.mark.parametrize("stop", ["", [""], ["", "no such text"]])
def test_an_empty_string_ends_no_answer(chat, stop):
    usual = chat.invoke(QUESTION)
    assert plain(chat.invoke(QUESTION, stop=stop)) == plain(usual)
    told = {"configurable": {"nr_agent": {"stop": stop}}}
    output = chat._reasoner().invoke({"messages": [("user", QUESTION)]}, told)
    tokens = usual.usage_metadata
    assert output["reasoning"]["usage"]["output"] == tokens["output_tokens"]
