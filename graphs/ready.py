"""A compiled graph that is ready to run: with a limit of supersteps of its own, however it is called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.state import ReasonerInput, ReasonerOutput, ReasonerState

RECURSION_LIMIT = 9_999
"""Supersteps where nobody else sets a limit: our own budget ends a run long before."""

Reasoner: TypeAlias = CompiledStateGraph[ReasonerState, ReasonerContext, ReasonerInput, ReasonerOutput]
_Configs: TypeAlias = RunnableConfig | Sequence[RunnableConfig] | None


def ready(compiled: Reasoner) -> Reasoner:
    """The graph with our limit, which a caller's own goes before."""
    # As `Pregel.copy` makes a copy, for a class of our own.
    made: Reasoner = _Ready(**{name: value for name, value in vars(compiled).items() if name != "__orig_class__"})
    return made.with_config({"recursion_limit": RECURSION_LIMIT, "metadata": {"ls_integration": "nr_agent"}})


class _Ready(CompiledStateGraph[ReasonerState, ReasonerContext, ReasonerInput, ReasonerOutput]):
    """Batches keep the limit: LangChain completes their configurations with 25 before the graph sees them."""

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        return super().batch(inputs, _limited(config), **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        return await super().abatch(inputs, _limited(config), **kwargs)

    def batch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> Iterator[Any]:
        return super().batch_as_completed(inputs, _limited(config), **kwargs)

    def abatch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        return super().abatch_as_completed(inputs, _limited(config), **kwargs)


def _limited(config: _Configs) -> Any:
    if config is None or isinstance(config, dict):
        return {"recursion_limit": RECURSION_LIMIT, **(config or {})}
    return [{"recursion_limit": RECURSION_LIMIT, **one} for one in config]
