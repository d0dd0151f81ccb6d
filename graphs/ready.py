"""A compiled graph that is ready to run: with a limit of its own however it is called, and tidy however it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from pydantic import BaseModel

from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.following import followed
from nr_agent.graphs.state import Asked, Channels, ReasonerOutput

RECURSION_LIMIT = 9_999
"""Supersteps where nobody else sets a limit: our own budget ends a run long before."""

Reasoner: TypeAlias = CompiledStateGraph[Channels, ReasonerContext, Asked, ReasonerOutput]
_CLOSING: WeakKeyDictionary[Any, tuple[Callable[[str], None], Callable[[str], object]]] = WeakKeyDictionary()
_Configs: TypeAlias = RunnableConfig | Sequence[RunnableConfig] | None


def ready(compiled: Reasoner, leave: Callable[[str], None], clean_up: Callable[[str], object]) -> Reasoner:
    """The graph with our limit, which a caller's own goes before.

    Args:
        compiled: the graph.
        leave: closes an episode whose run nobody follows any more.
        clean_up: closes what is still open of one whose run has failed.
    """
    _CLOSING[compiled.builder] = leave, clean_up
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
        return super().batch(inputs, self._limited(config), **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        return await super().abatch(inputs, self._limited(config), **kwargs)

    def batch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> Iterator[Any]:
        return super().batch_as_completed(inputs, self._limited(config), **kwargs)

    def abatch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        return super().abatch_as_completed(inputs, self._limited(config), **kwargs)

    def _followed(self, config: RunnableConfig | None) -> RunnableConfig:
        return followed(config, self.config, *_CLOSING[self.builder])

    def _limited(self, config: _Configs) -> Any:
        limit = (self.config or {}).get("recursion_limit", RECURSION_LIMIT)
        if config is None or isinstance(config, dict):
            return {"recursion_limit": limit, **(config or {})}
        return [{"recursion_limit": limit, **one} for one in config]


def _plain(given: Any) -> Any:
    """A person's answer as JSON values: it is saved as it is given, and LangGraph does not know our types."""
    if isinstance(given, Command) and isinstance(given.resume, BaseModel):
        return replace(given, resume=given.resume.model_dump(mode="json"))
    return given
