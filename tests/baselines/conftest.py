from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from nr_agent.engine.protocol import Sampling
from nr_agent.episode import Episode, Step
from nr_agent.graphs import Budget
from nr_agent.graphs.baseline import create_baseline
from nr_agent.store import EpisodeStore

PROBLEMS = (
    "State the final answer to the following arithmetic problem: 412 - 961 + 57 - 8 =",
    "State the final answer to the following arithmetic problem: 62 + 25 - 87 =",
    "Solve the following multiplication: 46 * 72. Give only the result as your final answer.",
)


@dataclass
class Run:
    """A finished run of a baseline."""

    report: dict[str, Any]
    episode: Episode

    @property
    def thoughts(self) -> list[Step]:
        return [step for step in self.episode.kept if step.kind == "think"]

    @property
    def probes(self) -> list[Step]:
        return [step for step in self.episode.steps if step.branch.startswith("probe")]

    @property
    def thinking(self) -> str:
        return "".join(step.text for step in self.thoughts)

    @property
    def text(self) -> str:
        return "".join(step.text for step in self.episode.kept if step.kind != "prompt")


@pytest.fixture(scope="session")
def engine(nano):
    return nano


@pytest.fixture(scope="session")
def solve(engine):
    """Solve a problem as a baseline does; every token that the engine was asked for is in the record."""

    def solve(baseline, problem=0, *, sampling=None, thinker=engine, seed=0, **budget):
        thinker.attach(None)
        counted = Counting(thinker)
        store = EpisodeStore.in_memory()
        graph = create_baseline(
            counted,
            baseline,
            store=store,
            sampling=sampling or Sampling(temperature=0.0),
            budget=Budget(**budget),
            seed=seed,
        )
        text = PROBLEMS[problem] if isinstance(problem, int) else problem
        try:
            report = graph.invoke({"messages": [("user", text)]})["reasoning"]
        finally:
            thinker.attach(None)  # other tests on this engine have other channels read
        episode = store.get(report["episode_id"])
        assert report["usage"]["output"] == counted.written
        assert episode.ids == kept_ids(episode)
        return Run(report, episode)

    return solve


def kept_ids(episode: Episode) -> list[int]:
    """The final sequence, put together by position: no step is missing, and none overlaps."""
    ids: list[int] = []
    for step in episode.kept:
        assert step.start == len(ids)
        ids += step.ids
    return ids


class Counting:
    """An engine that counts what it is asked to write or to take in."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.written = 0

    def submit(self, request: Any) -> Any:
        future = self._engine.submit(request)
        self.written += len(future.result().ids)
        return future

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)
