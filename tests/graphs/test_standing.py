"""How an episode stands, whoever looks at it from outside."""

from __future__ import annotations

import pytest
from graphs_helpers import ask, asks_about_slips, stream_into, words
from langgraph.types import Command
from typer.testing import CliRunner

from nr_agent.cli.main import app
from nr_agent.episode import Problem
from nr_agent.errors import Cancelled, ProblemError
from nr_agent.graphs import create_reasoner
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedEngine

THREAD = {"configurable": {"thread_id": "1"}}


def test_an_episode_waits_while_a_person_is_asked_and_no_longer(tmp_path):
    path = str(tmp_path / "episodes.db")
    seen: list[str] = []
    with EpisodeStore(path) as store:

        def script(text: str) -> str | None:
            if "slip" in text:
                seen.extend(summary.status for summary in store.find())
                return None
            return "slip"

        reasoner = asks_about_slips(script, store)
        reasoner.invoke(ask(), THREAD)
        (waiting,) = store.find()
        assert waiting.status == "waiting"
        assert store.get(waiting.id).usage.thinking == len("slip\n\n")
        listed = CliRunner().invoke(app, ["episodes", "ls", "--store", path], env={"COLUMNS": "200"})
        assert listed.exit_code == 0 and "waiting" in listed.output
        report = reasoner.invoke(Command(resume={"action": "continue"}), THREAD)["reasoning"]
        assert set(seen) == {"running"}
        assert store.get(report["episode_id"]).status == "completed"


def test_an_interrupted_episode_shows_what_it_had_cost(store):
    def script(text: str) -> str:
        if "thought" in text:
            raise Cancelled("that is enough")
        return "thought"

    events: list[dict] = []
    with pytest.raises(Cancelled):
        stream_into(events, create_reasoner(ScriptedEngine(script), store=store))
    episode = store.get(events[0]["episode_id"])
    assert episode.status == "interrupted"
    assert episode.usage.thinking == len("thought\n\n") and episode.usage.prompt == len(episode.steps[0].ids)


def test_a_branch_is_told_once_it_is_chosen(solve):
    def branching(text: str, seed: int) -> str | None:
        if text.endswith("<|branch|>"):
            return f"way {seed}"
        return None if "<|branch|>" in text else "circle"

    run = solve(ScriptedEngine(branching), words)
    kinds = [(event["type"], event.get("branch")) for event in run.stream]
    told = kinds.index(("nr.intervention", None))
    assert {branch for kind, branch in kinds[:told] if kind == "nr.step"} == {"main", "branch-1", "branch-2"}
    (intervention,) = [event["intervention"] for event in run.stream if event["type"] == "nr.intervention"]
    assert intervention["kept"] in intervention["branches"] and intervention == run.report["interventions"][0]


@pytest.mark.parametrize("text", ["\ud800", "2+2 \udfff ?", "\ud83d"])
def test_half_a_character_is_a_problem_error_everywhere(text, store):
    with pytest.raises(ProblemError, match="lone surrogate"):
        Problem(text=text)
    engine = ScriptedEngine(["a"])
    for messages in ([("user", text)], [("user", "q"), ("assistant", text), ("user", "r")]):
        with pytest.raises(ProblemError, match="lone surrogate"):
            create_reasoner(engine, store=store).invoke({"messages": messages})
    assert engine.open_sequences == 0
