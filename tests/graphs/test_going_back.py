"""Whoever goes back in time, with a person in the loop, finds the sequence and the record as they were there."""

from __future__ import annotations

import pytest
from graphs_helpers import ask, words
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from nr_agent.errors import EngineError
from nr_agent.graphs import create_reasoner
from nr_agent.policies import AskHumanPolicy, BranchPolicy, Policies
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector, ScriptedEngine
from nr_agent.tokens import BRANCH, END_THINK, IN_DETAIL, THINK

THREAD = {"configurable": {"thread_id": "1"}}


class Told:
    """A script that remembers what it was asked to go on from."""

    def __init__(self, *, redone: str) -> None:
        self.redone = redone
        self.seen: list[str] = []

    def __call__(self, text: str) -> str | None:
        thoughts = text.split(THINK)[-1]
        self.seen.append(thoughts)
        if thoughts.endswith(IN_DETAIL):
            return self.redone
        if thoughts.count("\n\n") >= 3:
            return None
        return "first slip" if "slip" not in thoughts else ("then on" if "then" not in thoughts else "third slip")


def build(engine, store, saver):
    return create_reasoner(
        engine,
        detector=ScriptedDetector(lambda text: {"intra_step": 0.9 if "slip" in text else 0.1}),
        policies=Policies({"intra_step": AskHumanPolicy()}, refractory=0),
        store=store,
        checkpointer=saver,
    )


@pytest.mark.parametrize(
    "redone", ["redone but a slip too and quite long indeed", "twin slips"], ids=["longer", "as long"]
)
@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "another process"])
def test_a_step_that_was_taken_back_since_is_there_again(store, restarted, redone):
    saver, told = InMemorySaver(), Told(redone=redone)
    reasoner = build(ScriptedEngine(told), store, saver)
    reasoner.invoke(ask(), THREAD)
    then = reasoner.get_state(THREAD).config
    reasoner.invoke(Command(resume="rollback"), THREAD)  # redone, which is asked about, too
    if restarted:
        reasoner = build(ScriptedEngine(told), store, saver)
    output = reasoner.invoke(None, then, version="v2")
    while output.interrupts:
        output = reasoner.invoke(Command(resume="continue"), THREAD, version="v2")
    episode = store.get(output.value["reasoning"]["episode_id"])
    kept = [step.text for step in episode.kept if step.kind == "think"]
    assert kept == ["first slip\n\n", "then on\n\n", "third slip\n\n"]
    assert told.seen[-1] == "\n" + "".join(kept)
    ends = [0, *(step.start + len(step.ids) for step in episode.kept)]
    assert [step.start for step in episode.kept] == ends[:-1]
    assert output.value["messages"][-1].additional_kwargs["reasoning_content"] == "".join(kept).strip()


def test_what_was_thought_since_is_no_part_of_it(store):
    told = Told(redone="")
    reasoner = build(ScriptedEngine(told), store, InMemorySaver())
    reasoner.invoke(ask(), THREAD)
    then = reasoner.get_state(THREAD).config
    reasoner.invoke(Command(resume="continue"), THREAD)  # on to the third step
    output = reasoner.invoke(None, then, version="v2")
    assert output.interrupts
    output = reasoner.invoke(Command(resume="stop"), THREAD, version="v2")
    episode = store.get(output.value["reasoning"]["episode_id"])
    assert [step.text for step in episode.kept if step.kind == "think"] == ["first slip\n\n"]
    assert [step.start for step in episode.kept][1:] == [step.start + len(step.ids) for step in episode.kept[:-1]]


def test_what_another_process_thought_since_is_no_part_of_it(store):
    saver, told = InMemorySaver(), Told(redone="")
    here = build(ScriptedEngine(told), store, saver)
    here.invoke(ask(), THREAD)
    then = here.get_state(THREAD).config
    there = build(ScriptedEngine(told), store, saver)
    output = there.invoke(Command(resume="continue"), THREAD, version="v2")
    while output.interrupts:
        output = there.invoke(Command(resume="continue"), THREAD, version="v2")
    here.invoke(None, then)
    output = here.invoke(Command(resume="stop"), THREAD, version="v2")
    episode = store.get(output.value["reasoning"]["episode_id"])
    assert [step.text for step in episode.kept if step.kind == "think"] == ["first slip\n\n"]
    assert sum("</think>" in step.text for step in episode.kept) == 1


def test_an_answer_given_at_an_earlier_question_is_the_end(store):
    told = Told(redone="")
    reasoner = build(ScriptedEngine(told), store, InMemorySaver())
    reasoner.invoke(ask(), THREAD)
    then = reasoner.get_state(THREAD).config
    output = reasoner.invoke(Command(resume="continue"), THREAD, version="v2")
    while output.interrupts:
        output = reasoner.invoke(Command(resume="continue"), THREAD, version="v2")
    reasoner.invoke(None, then)
    output = reasoner.invoke(Command(resume={"action": "answer", "answer": "7"}), THREAD, version="v2")
    assert output.value["reasoning"]["answer"] == "7"
    assert output.value["messages"][-1].additional_kwargs["reasoning_content"] == "first slip"
    assert [step.kind for step in store.get(output.value["reasoning"]["episode_id"]).kept] == ["prompt", "think"]


def test_forks_that_are_gone_back_to_leave_nothing_of_the_old_line(store):
    closes = []

    def script(text, seed):
        if text.endswith(BRANCH):
            return f"way closes{END_THINK}" if closes else f"way {seed}\n\n"
        return ("more" if text.count("more") < 2 else None) if "way" in text else "circle"

    reasoner = create_reasoner(
        ScriptedEngine(script),
        detector=ScriptedDetector(words),
        policies={"inter_step": BranchPolicy(back=0)},
        store=store,
        checkpointer=InMemorySaver(),
    )
    reasoner.invoke(ask(), THREAD)
    then = next(state for state in reasoner.get_state_history(THREAD) if state.next == ("explore", "explore"))
    closes.append(True)
    report = reasoner.invoke(None, then.config)["reasoning"]
    kept = store.get(report["episode_id"]).kept
    assert [step.start for step in kept] == [0, *(step.start + len(step.ids) for step in kept)][:-1]
    assert sum(END_THINK in step.text for step in kept) == 1


def test_a_store_without_texts_cannot_be_gone_back_in_and_loses_nothing(tmp_path):
    with EpisodeStore(tmp_path / "episodes.db", keep_text=False) as kept:
        reasoner = build(ScriptedEngine(Told(redone="")), kept, InMemorySaver())
        reasoner.invoke(ask(), THREAD)
        then = reasoner.get_state(THREAD).config
        output = reasoner.invoke(Command(resume="continue"), THREAD, version="v2")
        while output.interrupts:
            output = reasoner.invoke(Command(resume="continue"), THREAD, version="v2")
        episode_id = output.value["reasoning"]["episode_id"]
        before = [(step.index, step.discarded) for step in kept.get(episode_id).steps]
        reasoner.invoke(None, then)
        with pytest.raises(EngineError, match="keeps no tokens"):
            reasoner.invoke(Command(resume="continue"), THREAD)
        assert [(step.index, step.discarded) for step in kept.get(episode_id).steps] == before
