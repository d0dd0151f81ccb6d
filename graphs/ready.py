"""A compiled graph that is ready to run: with a limit of its own however it is called, and tidy however it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias
from uuid import UUID
from weakref import WeakKeyDictionary

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from pydantic import BaseModel

from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.state import Asked, Channels, ReasonerOutput

RECURSION_LIMIT = 9_999
"""Supersteps where nobody else sets a limit: our own budget ends a run long before."""

Reasoner: TypeAlias = CompiledStateGraph[Channels, ReasonerContext, Asked, ReasonerOutput]
_LEAVING: WeakKeyDictionary[Any, Callable[[str], None]] = WeakKeyDictionary()
_LEFT = (GeneratorExit, KeyboardInterrupt, asyncio.CancelledError)
_Configs: TypeAlias = RunnableConfig | Sequence[RunnableConfig] | None


def ready(compiled: Reasoner, leave: Callable[[str], None]) -> Reasoner:
    """The graph with our limit, which a caller's own goes before.

    Args:
        compiled: the graph.
        leave: closes an episode whose run nobody follows any more.
    """
    _LEAVING[compiled.builder] = leave
    # As `Pregel.copy` makes a copy, for a class of our own.
    made: Reasoner = _Ready(**{name: value for name, value in vars(compiled).items() if name != "__orig_class__"})
    return made.with_config({"recursion_limit": RECURSION_LIMIT, "metadata": {"ls_integration": "nr_agent"}})


class _Ready(CompiledStateGraph[Channels, ReasonerContext, Asked, ReasonerOutput]):
    """Closes the episodes of runs that are left, and keeps the limit in batches.

    LangChain completes the configurations of batches with a limit of 25 before the graph sees them.
    """

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        return super().stream(_plain(input), self._followed(config), **kwargs)

    def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        return super().astream(_plain(input), self._followed(config), **kwargs)

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        return super().batch(inputs, _limited(config), **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        return await super().abatch(inputs, _limited(config), **kwargs)

    def batch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> Iterator[Any]:
        return super().batch_as_completed(inputs, _limited(config), **kwargs)

    def abatch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        return super().abatch_as_completed(inputs, _limited(config), **kwargs)

    def _followed(self, config: RunnableConfig | None) -> RunnableConfig:
        """The configuration, with somebody who sees when the run is left."""
        follower = _Follower(_LEAVING[self.builder])
        given = (config or {}).get("callbacks") or (self.config or {}).get("callbacks")
        given = given or (var_child_runnable_config.get() or {}).get("callbacks")
        if isinstance(given, BaseCallbackManager):
            manager = given.copy()
            manager.add_handler(follower, inherit=True)
            return {**(config or {}), "callbacks": manager}
        return {**(config or {}), "callbacks": [*(given or ()), follower]}


class _Follower(BaseCallbackHandler):
    """Knows the episodes of a run, and closes them if the run is left between two nodes.

    Nodes that are left close their episode by themselves. But a stream may be left, or a task cancelled, while
    LangGraph itself is at work.
    """

    def __init__(self, leave: Callable[[str], None]) -> None:
        self._leave = leave
        self._episodes: dict[UUID | None, str] = {}

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._note(inputs, parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        self._episodes.pop(run_id, None)
        self._note(outputs, parent_run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        episode_id = self._episodes.pop(run_id, None)
        if episode_id is not None and isinstance(error, _LEFT):
            self._leave(episode_id)

    def _note(self, values: Any, run_id: UUID | None) -> None:
        facts = values.get("facts", values) if isinstance(values, dict) else {}
        if isinstance(facts, dict) and isinstance(facts.get("episode_id"), str):
            self._episodes[run_id] = facts["episode_id"]


def _plain(given: Any) -> Any:
    """A person's answer as JSON values: it is saved as it is given, and LangGraph does not know our types."""
    if isinstance(given, Command) and isinstance(given.resume, BaseModel):
        return replace(given, resume=given.resume.model_dump(mode="json"))
    return given


def _limited(config: _Configs) -> Any:
    if config is None or isinstance(config, dict):
        return {"recursion_limit": RECURSION_LIMIT, **(config or {})}
    return [{"recursion_limit": RECURSION_LIMIT, **one} for one in config]
