"""A reasoner as a tool for an agent: a question goes in, an answer comes out."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import StructuredTool
from langgraph.graph.state import CompiledStateGraph

from nr_agent.errors import ConfigurationError
from nr_agent.graphs.ready import RECURSION_LIMIT, Reasoner
from nr_agent.graphs.reasoner import parts_of
from nr_agent.graphs.state import ReasoningReport

DESCRIPTION = (
    "Solves a hard, self-contained problem by thinking step by step with supervision. "
    "Give the whole problem: it sees nothing else."
)


def as_tool(reasoner: Reasoner, name: str = "solve_hard_problem", description: str = DESCRIPTION) -> StructuredTool:
    """A tool that hands a question to a reasoner.

    Args:
        reasoner: of `create_reasoner`.
        name: of the tool.
        description: tells the agent what it is for.

    Returns:
        A tool whose content is the answer, and whose artifact is the `reasoning` report.

    Raises:
        ConfigurationError: it is no reasoner.
    """
    if not isinstance(reasoner, CompiledStateGraph):
        raise ConfigurationError(f"a {type(reasoner).__name__} is no reasoner", hint="give create_reasoner(...)")
    if "reasoning" not in reasoner.output_channels:
        raise ConfigurationError(
            f"the graph {reasoner.name!r} is no reasoner: no `reasoning` comes out of it",
            hint="give create_reasoner(...), or a graph with a reasoner in it whose state has `reasoning`",
        )

    def solve(question: str, config: RunnableConfig) -> tuple[str, ReasoningReport]:
        return _result(reasoner, reasoner.invoke(_input(question), _own_limit(config)))

    async def asolve(question: str, config: RunnableConfig) -> tuple[str, ReasoningReport]:
        state = await reasoner.ainvoke(_input(question), _own_limit(config))
        return await asyncio.to_thread(_result, reasoner, state)

    return StructuredTool.from_function(
        func=solve, coroutine=asolve, name=name, description=description, response_format="content_and_artifact"
    )


def _input(question: str) -> Any:
    return {"messages": [{"role": "user", "content": question}]}


def _own_limit(config: RunnableConfig) -> RunnableConfig:
    """An agent's limit counts the agent's steps, not the steps of a thought.

    Outside of a graph every question has a thread of its own: it sees nothing of those before.
    """
    known = config.get("configurable", {})
    if "__pregel_checkpointer" not in known:
        known = {**known, "thread_id": str(uuid.uuid4())}
    return {**config, "configurable": known, "recursion_limit": RECURSION_LIMIT}


def _result(reasoner: Reasoner, state: dict[str, Any]) -> tuple[str, ReasoningReport]:
    asked = state.get("__interrupt__") or ()
    if asked or "reasoning" not in state:
        for question in asked:
            # A graph around the reasoner, or with nodes of others, may ask for itself.
            if isinstance(question.value, Mapping) and "episode_id" in question.value:
                with contextlib.suppress(ConfigurationError):
                    parts_of(reasoner).leave(question.value["episode_id"])
        raise ConfigurationError(
            "the reasoner has a question for a person, and whoever called this tool cannot ask",
            hint="call it in a node of a graph with a checkpointer, or use policies that ask nobody",
        )
    report: ReasoningReport = state["reasoning"]
    # A graph around the reasoner may keep its messages elsewhere.
    said = [message.text for message in state.get("messages", ()) if message.id == f"nr-{report['episode_id']}"]
    return (said[-1] if said else report["answer"]) or "No answer was found.", report
