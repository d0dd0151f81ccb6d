"""What the tests of the graph say, score and stream."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from nr_agent import EpisodeStore
from nr_agent.graphs import create_reasoner
from nr_agent.policies import AskHumanPolicy
from nr_agent.testing import ScriptedDetector, ScriptedEngine


def ask(problem: str = "What is 2+2?") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": problem}]}


def words(text: str) -> dict[str, float]:
    """Scores by what a step says."""
    return {
        "intra_step": 0.9 if "slip" in text else 0.1,
        "inter_step": 0.99 if "circle" in text else 0.1,
        "instance": 0.9 if "enough" in text else 0.1,
    }


def stream_into(events: list[dict[str, Any]], reasoner: Any, *, problem: str = "What is 2+2?") -> None:
    """Run a reasoner, and keep what it streams even if it fails."""
    for part in reasoner.stream(ask(problem), stream_mode="custom", version="v2"):
        events += [part["data"]]


def asks_about_slips(script: Any, store: EpisodeStore) -> Any:
    """A reasoner that asks a person about every slip."""
    return create_reasoner(
        ScriptedEngine(script),
        detector=ScriptedDetector(words),
        policies={"intra_step": AskHumanPolicy()},
        store=store,
        checkpointer=InMemorySaver(),
    )
