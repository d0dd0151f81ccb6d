from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from graphs_helpers import ask

from nr_agent.episode import Episode
from nr_agent.graphs import create_reasoner
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector, ScriptedEngine


@dataclass
class Run:
    """A finished run: the output, what was streamed, the episode, and the engine."""

    output: dict[str, Any]
    stream: list[dict[str, Any]]
    episode: Episode
    engine: ScriptedEngine

    @property
    def report(self) -> dict[str, Any]:
        return self.output["reasoning"]

    @property
    def final_text(self) -> str:
        return self.engine.codec.decode(self.episode.ids)

    def thoughts(self) -> list[str]:
        return [step.text for step in self.episode.kept if step.kind == "think"]


@pytest.fixture
def store() -> EpisodeStore:
    return EpisodeStore.in_memory()


@pytest.fixture
def solve(store: EpisodeStore) -> Callable[..., Run]:
    """Run a reasoner over a scripted engine, once."""

    def solve(
        engine: ScriptedEngine, scores: Any = None, *, config: Any = None, context: Any = None, **options: Any
    ) -> Run:
        detector = None if scores is None else ScriptedDetector(scores)
        reasoner = create_reasoner(engine, detector=detector, store=store, **options)
        stream, output = [], {}
        parts = reasoner.stream(ask(), config, context=context, stream_mode=["custom", "values"], version="v2")
        for part in parts:
            if part["type"] == "custom":
                stream.append(part["data"])
            else:
                output = part["data"]
        return Run(output, stream, store.get(output["reasoning"]["episode_id"]), engine)

    return solve
