"""Stored episodes under other policies: the same policies see and say the same again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from graphs_helpers import ask, words
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from nr_agent.errors import PolicyError
from nr_agent.graphs import Budget, create_reasoner
from nr_agent.policies import (
    AskHumanPolicy,
    BranchPolicy,
    EarlyStopPolicy,
    Policies,
    PolicyContext,
    RecheckPolicy,
    load_policies,
    replay,
)
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector, ScriptedEngine
from nr_agent.tokens import END_THINK

ALARMS = load_policies("default").alarms
PIECES = ("slip", "circle", "enough", "2+2=4", "So the answer is 4.", "words")


@dataclass(frozen=True)
class Noting(Policies):
    """Policies that keep what they were shown and what they said."""

    asked: list[Any] = field(default_factory=list)

    def decide(self, contexts: list[PolicyContext]) -> Any:
        decision = super().decide(contexts)
        self.asked.append(([vars(context) for context in contexts], decision))
        return decision


def noting(seed: int) -> Noting:
    draw = random.Random(seed)
    stop = EarlyStopPolicy(require_answer=draw.random() < 0.5)
    slips = [AskHumanPolicy(require_answer=True), RecheckPolicy(rollback=draw.random() < 0.6)]
    return Noting(
        {
            "intra_step": slips if draw.random() < 0.5 else slips[1],
            "inter_step": BranchPolicy(width=draw.randint(1, 3), back=draw.randint(0, 3)),
            "instance": stop,
        },
        max_interventions=draw.randint(0, 8),
        refractory=draw.randint(0, 2),
    )


def scripted(seed: int) -> ScriptedEngine:
    def think(text: str, fork: int) -> str | None:
        draw = random.Random(f"{seed}/{fork}/{len(text)}")
        if draw.random() < 0.04:
            return None
        return " ".join(draw.sample(PIECES, draw.randint(1, 2))) + ("</think>" if draw.random() < 0.03 else "")

    return ScriptedEngine(think, missing=[END_THINK] if seed % 4 == 3 else [])


def solve(seed: int, policies: Policies, store: Any, **options: Any) -> Any:
    """An episode; a person who is asked says whatever comes to mind."""
    reasoner = create_reasoner(
        scripted(seed),
        detector=ScriptedDetector(words),
        policies=policies,
        store=store,
        budget=Budget(max_tokens=400),
        checkpointer=InMemorySaver(),
        **options,
    )
    config = {"configurable": {"thread_id": "1", "nr_agent": {"metadata": {"tests": "none"}, "domain": "math"}}}
    given: Any = ask()
    draw = random.Random(seed)
    while True:
        output = reasoner.invoke(given, config, version="v2")
        if not output.interrupts:
            return store.get(output.value["reasoning"]["episode_id"])
        given = Command(resume={"action": draw.choice(["continue", "recheck", "rollback", "branch", "stop"])})


@pytest.mark.parametrize("seed", range(60))
def test_under_its_own_policies_every_context_and_decision_comes_again(seed, store):
    live = noting(seed)
    episode = solve(seed, live, store)
    again = replace(live, asked=[])
    found = replay(episode, again)
    assert found.first_change is None
    assert again.asked == live.asked
    assert all(point.exact for point in found.points)


def test_the_random_episodes_hold_every_kind_of_intervention(store):
    kinds = [one.kind for seed in range(60) for one in solve(seed, noting(seed), store).interventions]
    assert {"recheck", "branch", "stop", "ask_human"} == set(kinds) and len(kinds) > 100


def test_episode_that_was_only_watched_shows_what_would_have_been_done(store):
    engine = ScriptedEngine(["2+2=5 slip", "2+2=5 slip", "slip again", "So the answer is 5.", "enough", "more", "more"])
    reasoner = create_reasoner(engine, detector=ScriptedDetector(words), store=store, control=False)
    episode = store.get(reasoner.invoke(ask())["reasoning"]["episode_id"])
    rules = {"intra_step": RecheckPolicy(), "instance": EarlyStopPolicy()}
    found = replay(episode, Policies(rules, refractory=1, alarms=ALARMS))
    assert [(point.step, point.was, point.now, point.exact) for point in found.points] == [
        (1, "continue", "recheck", True),
        (2, "continue", "continue", False),  # the gap behind its own recheck
        (3, "continue", "recheck", False),
        (5, "continue", "stop", False),
    ]
    assert found.first_change is found.points[0]
    assert found.points[-1].tokens_behind == 2 * len("more\n\n")


@pytest.mark.parametrize("pack", ["medicine", "finance"])
def test_whether_somebody_could_be_asked_is_the_records_to_say(pack, store):
    script = ["So the answer is 4.", "slip", "words"]
    reasoner = create_reasoner(
        ScriptedEngine(script),
        detector=ScriptedDetector(words),
        policies=replace(load_policies(pack), attended=False),
        store=store,
    )
    report = reasoner.invoke(ask())["reasoning"]
    assert report["interventions"] and report["interventions"][0]["kind"] != "ask_human"
    episode = store.get(report["episode_id"])
    assert not any(point.changed for point in replay(episode, load_policies(pack)).points)
    older = episode.model_copy(update={"settings": {k: v for k, v in episode.settings.items() if k != "attended"}})
    assert not any(point.changed for point in replay(older, load_policies(pack)).points)


def test_other_policies_differ_where_they_differ(store):
    engine = ScriptedEngine(["slip", "fine", "fine", "circle", "fine", "So the answer is 4.", "enough"])
    reasoner = create_reasoner(engine, detector=ScriptedDetector(words), store=store)
    episode = store.get(reasoner.invoke(ask())["reasoning"]["episode_id"])
    slips = RecheckPolicy(rollback=True)
    rules = {"intra_step": slips, "inter_step": AskHumanPolicy(), "instance": EarlyStopPolicy()}
    found = replay(episode, Policies(rules, alarms=ALARMS))
    assert [(point.was, point.now) for point in found.points] == [
        ("rollback", "rollback"),
        ("branch", "ask_human"),
        ("stop", "stop"),
    ]
    assert [point.exact for point in found.points] == [True, True, False]


def test_under_other_alarms_there_would_have_been_other_events_and_nothing_is_exact(store):
    rules = {"intra_step": RecheckPolicy()}
    reasoner = create_reasoner(
        ScriptedEngine(["slip", "fine"]),
        detector=ScriptedDetector(words),
        policies=Policies(rules, alarms={"intra_step": 0.1}),
        store=store,
    )
    episode = store.get(reasoner.invoke(ask())["reasoning"]["episode_id"])
    assert episode.settings["alarms"] == {"intra_step": 0.1}
    for alarms, exact in (({"intra_step": 0.1}, True), ({"intra_step": 0.2}, False), ({}, False)):
        found = replay(episode, Policies(rules, alarms=alarms))
        assert [(point.was, point.now, point.exact) for point in found.points] == [("recheck", "recheck", exact)]
    older = episode.model_copy(update={"settings": {k: v for k, v in episode.settings.items() if k != "alarms"}})
    assert [point.exact for point in replay(older, Policies(rules, alarms={"intra_step": 0.2})).points] == [True]


def test_an_episode_without_its_texts_is_not_replayed(tmp_path):
    """Policies would be asked about words that nobody knows any more."""
    with EpisodeStore(tmp_path / "episodes.db", keep_text=False) as kept:
        reasoner = create_reasoner(ScriptedEngine(["slip", "fine"]), detector=ScriptedDetector(words), store=kept)
        episode = kept.get(reasoner.invoke(ask())["reasoning"]["episode_id"])
    with pytest.raises(PolicyError, match=r"stored without its texts.*\n.*keep_text"):
        replay(episode, load_policies("default"))
