"""Whoever goes back in time, with a person in the loop, finds the sequence and the record as they were there."""

from __future__ import annotations

import pytest
from graphs_helpers import ask
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from nr_agent.graphs import create_reasoner
from nr_agent.policies import AskHumanPolicy, Policies
from nr_agent.testing import ScriptedDetector, ScriptedEngine
from nr_agent.tokens import IN_DETAIL, THINK

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
