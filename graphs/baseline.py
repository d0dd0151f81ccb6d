"""A baseline as a graph: the reasoner's own nodes open the episode, have it answered and record it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph.graph import END, START

from nr_agent.engine.protocol import Engine, Sampling
from nr_agent.errors import ConfigurationError
from nr_agent.graphs.answering import Answer
from nr_agent.graphs.budget import Budget
from nr_agent.graphs.checking import check_parts, read_budget, read_sampling
from nr_agent.graphs.lines import Book, EpisodeLine
from nr_agent.graphs.memory import Memory
from nr_agent.graphs.opening import Open
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.ready import Reasoner, ready
from nr_agent.graphs.reasoner import Graph, load_parts, new_graph, next_node, open_store
from nr_agent.graphs.recording import Record
from nr_agent.graphs.running import Node, quick, waiting
from nr_agent.graphs.state import Channels, pack, unpack
from nr_agent.graphs.threads import outlast
from nr_agent.policies import Policies, Remedies, choose_mode
from nr_agent.policies.baselines import Baseline

if TYPE_CHECKING:
    from nr_agent.store import EpisodeStore


class ThinkAs:
    """Think as a baseline does, in one superstep.

    Reads `sequence`, `budget`; writes `sequence`, `pending`, `closed`, `stop_reason`, and `answer` where it is there.

    Args:
        parts: of the reasoner.
        baseline: how it thinks.
    """

    def __init__(self, parts: Parts, baseline: Baseline) -> None:
        self.parts = parts
        self.baseline = baseline

    def __call__(self, channels: Channels) -> dict[str, Any]:
        """Think until the line is closed or at its end."""
        state = unpack(channels)
        return pack(channels, self._think(state, Book(self.parts, state, self.baseline.name)))

    async def acall(self, channels: Channels) -> dict[str, Any]:
        """The same for coroutines: a task that is cancelled stops the engine."""
        state = unpack(channels)
        book = Book(self.parts, state, self.baseline.name)
        task = asyncio.ensure_future(asyncio.to_thread(self._think, state, book))
        try:
            return pack(channels, await asyncio.shield(task))
        except asyncio.CancelledError:
            book.halt()
            await outlast(task)  # it cleans up
            raise

    def _think(self, state: Mapping[str, Any], book: Book) -> dict[str, Any]:
        with self.parts.guard(state["episode_id"]):
            ref = self.parts.sequence(state)
            line = EpisodeLine(book, ref, branch=state["branch"], seed=state["seed"])
            self.baseline.think(line)
            return self._settle(state, book, line)

    def _settle(self, state: Mapping[str, Any], book: Book, line: EpisodeLine) -> dict[str, Any]:
        if line.answer is not None and book.kept is None:
            line.give()
            line.keep(line, line.answer)
        kept = book.kept or line
        for other in book.lines:
            if other is not kept:
                self.parts.close(book.episode_id, other.ref)
        budget = {**state["budget"]}
        if kept.answer_tokens is not None:
            budget["max_answer_tokens"] = kept.answer_tokens
        return {
            "sequence": self.parts.hold(book.episode_id, kept.ref),
            "branch": kept.branch,
            "next_index": book.next_index,
            "pending": kept.pending,
            "closed": kept.closed,
            "budget": budget,
            "stop_reason": kept.reason,
            "answer": book.answer,
            "next": "record" if book.kept is not None or kept.ended else "answer",
        }


def create_baseline(
    engine: Engine | str | Path,
    baseline: Baseline,
    *,
    store: EpisodeStore | None = None,
    budget: Budget = Budget(),  # noqa: B008 - immutable
    sampling: Sampling = Sampling(),  # noqa: B008 - immutable
    seed: int = 0,
) -> Reasoner:
    """A graph that thinks as a baseline does: from `messages` to `messages` and a report, as `create_reasoner`'s.

    The budget is for one line of thinking; probes and samples come on top of it, and all are in the report's usage. A
    step of the budget is a paragraph, wherever a baseline cuts its own.

    Args:
        engine: thinks; or the name or folder of a model that is to be loaded.
        baseline: how it thinks.
        store: keeps the episodes; in memory by default.
        budget: what an episode may cost.
        sampling: how tokens are drawn.
        seed: of the sampling.

    Raises:
        ModelError: the model cannot be loaded.
        ChannelError: the baseline reads channels that the model does not have.
        ConfigurationError: a part is something else, or the engine's channels are read for a detector.
    """
    if isinstance(baseline, type) or not callable(getattr(baseline, "think", None)):
        raise ConfigurationError(
            f"the baseline is {baseline!r}", hint="give one of nr_agent.policies.baselines, made: Deer(), for example"
        )
    budget, sampling = read_budget(budget), read_sampling(sampling)
    engine, _ = load_parts(engine, None)
    check_parts(engine, None, store, seed)
    remedies = Remedies(engine.codec, choose_mode(engine.codec, "prompted"))
    parts = Parts(
        engine=engine,
        detector=None,
        policies=Policies(name=baseline.name),
        store=open_store(store),
        remedies=remedies,
        sampling=sampling,
        control=False,
        memory=Memory(None),
    )
    plan = getattr(baseline, "plan", None)
    if plan is not None:
        engine.attach(plan, replace=False)
    own: Any = baseline
    parameters = {item.name: getattr(own, item.name) for item in fields(own) if item.metadata.get("record", True)}
    settings = {"mode": remedies.mode, "control": False, "baseline": parameters}
    graph = _wire(ThinkAs(parts, baseline), Open(parts, budget=budget, seed=seed, settings=settings))
    return ready(graph.compile(name=baseline.name), parts.leave, parts.clean_up)


def _wire(think: ThinkAs, opening: Open) -> Graph:
    graph = new_graph()
    graph.add_node("open", quick(opening, "open"))
    graph.add_node("think", Node(think, think.acall, "think"))
    graph.add_node("answer", waiting(Answer(think.parts), "answer"))
    graph.add_node("record", quick(Record(think.parts, raises=False), "record"))
    graph.add_edge(START, "open")
    graph.add_conditional_edges("open", next_node, ["think", "answer"])
    graph.add_conditional_edges("think", next_node, ["answer", "record"])
    graph.add_edge("answer", "record")
    graph.add_edge("record", END)
    return graph
