"""What the tests of the graph say, score and stream."""

from __future__ import annotations

from typing import Any


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
