"""The entry for LangGraph's server and Studio (`langgraph.json`): its schema is there before any weights are."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from langgraph.runtime import Runtime

from nr_agent.engine.protocol import ExtendRequest, Segment
from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.ready import Reasoner, ready
from nr_agent.graphs.reasoner import build_reasoner, nodes_of, wire
from nr_agent.graphs.state import ReasonerState

_LOADING = threading.Lock()


def make_graph() -> Reasoner:
    """The reasoner that the settings describe (`NR_AGENT_MODEL`, `NR_AGENT_POLICIES`, `NR_AGENT_STORE`).

    The server asks for it for every run, and whenever somebody looks at its schema: the model is loaded once, by
    the first node that runs. The server brings its own checkpointer, so policies that ask a person can.
    """
    names = ("open", "think", "recheck", "branch", "explore", "choose", "ask_human", "stop", "answer", "record")
    nodes = {name: _Later(name) for name in names}
    return ready(
        wire(nodes).compile(name="nr_reasoner"),
        lambda episode_id: nodes["open"].parts.leave(episode_id),
        lambda episode_id: nodes["open"].parts.clean_up(episode_id),
    )


class _Later:
    """A node that is made when it is first used."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, state: ReasonerState, runtime: Runtime[ReasonerContext]) -> dict[str, Any]:
        """What the node does."""
        update: dict[str, Any] = self._node(state, runtime)
        return update

    @property
    def parts(self) -> Parts:
        """Of the reasoner."""
        parts: Parts = self._node.parts
        return parts

    @property
    def beside_others(self) -> bool:
        """As the node has it."""
        return bool(self._node.beside_others)

    def prepare(self, state: Any) -> ExtendRequest | None:
        """As the node does it."""
        request: ExtendRequest | None = self._node.prepare(state)
        return request

    def finish(self, state: Any, segment: Segment | None, seconds: float) -> dict[str, Any]:
        """As the node does it."""
        update: dict[str, Any] = self._node.finish(state, segment, seconds)
        return update

    @property
    def _node(self) -> Any:
        with _LOADING:
            return _nodes()[self.name]


@cache
def _nodes() -> dict[str, Any]:
    from nr_agent.settings import load_settings  # noqa: PLC0415 - reads the environment when it is used
    from nr_agent.store import EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    settings = load_settings()
    graph = build_reasoner(settings.model, policies=settings.policies, store=EpisodeStore(settings.store_url))
    return nodes_of(graph)
