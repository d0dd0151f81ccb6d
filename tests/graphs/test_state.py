"""How the state is kept, and how a line of thought is found again."""

from __future__ import annotations

import random

import pytest
from graphs_helpers import ask, words
from hypothesis import given
from hypothesis import strategies as st

from nr_agent.graphs import Budget, create_reasoner
from nr_agent.graphs.lineage import find_line
from nr_agent.graphs.state import FACTS, ReasonerState, pack, unpack
from nr_agent.policies import BranchPolicy, Policies, RecheckPolicy
from nr_agent.testing import ScriptedDetector, ScriptedEngine

NAMES = sorted(set(ReasonerState.__annotations__) - {"messages", "reasoning", "candidates", "remaining_steps"})
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.integers()))
UPDATES = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6), max_size=4)


@given(UPDATES)
def test_what_is_packed_comes_out_again(updates):
    channels: dict = {"messages": ["m"]}
    state: dict = unpack(channels)
    for update in updates:
        channels |= pack(channels, update)
        state |= update
    assert unpack(channels) == state
    assert set(channels) <= {"messages", "facts", "course"}


def test_facts_are_written_once_and_what_is_usual_is_not_kept():
    channels = pack({}, {"episode_id": "e", "budget": {}, "pending": [], "answered": False, "next_index": 1})
    assert channels == {"facts": {"episode_id": "e", "budget": {}}, "course": {"next_index": 1}}
    assert pack(channels, {"next_index": 2, "pending": [3]}) == {"course": {"next_index": 2, "pending": [3]}}
    assert set(FACTS) <= set(NAMES)


@pytest.mark.parametrize("seed", range(60))
def test_every_state_of_an_episode_finds_its_own_line_again(seed, store):
    """At each step the engine's tokens are those of the line that the finished episode gives for that state."""
    draw = random.Random(seed)
    was: list = []

    def think(text, fork):
        own = random.Random(f"{seed}/{fork}/{len(text)}")
        return None if own.random() < 0.05 else " ".join(own.sample(["slip", "circle", "a", "b", "words"], 2))

    class Watched(ScriptedEngine):
        def submit(self, request):
            was.append((request.ref, self.tokens(request.ref)))
            return super().submit(request)

    policies = {
        "intra_step": RecheckPolicy(rollback=draw.random() < 0.6),
        "inter_step": BranchPolicy(width=draw.randint(1, 3), back=draw.randint(0, 3)),
    }
    reasoner = create_reasoner(
        Watched(think),
        detector=ScriptedDetector(words),
        policies=Policies(policies, max_interventions=8, refractory=0),
        store=store,
        budget=Budget(max_steps=25),
    )
    known: list = []
    for part in reasoner.stream(ask(), stream_mode="debug", version="v2"):
        payload = part["data"]
        if payload["type"] == "task" and payload["payload"]["name"] == "think":
            state = unpack(payload["payload"]["input"])
            known.append((state["branch"], state["next_index"], state["sequence"]))
    assert known
    (summary,) = store.find()
    episode = store.get(summary.id)
    for branch, index, sequence in known:
        line = find_line(episode, branch=branch, before=index, length=sequence["length"])
        assert line is not None
        thought = [tokens for ref, tokens in was if (ref.id, ref.length) == (sequence["id"], sequence["length"])]
        assert [token for step in line for token in step.ids] in thought
