"""A reasoner run by itself, wherever that is: a graph that runs inside another graph's node would be part of it.

It would inherit that graph's checkpointer and callbacks, and report its own messages beside those of the chat model.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.config import get_stream_writer

from nr_agent.graphs.ready import Reasoner
from nr_agent.graphs.threads import outlast


def stream_apart(reasoner: Reasoner, given: Any, config: RunnableConfig) -> Iterator[dict[str, Any]]:
    """The events of a run."""
    context = _without_config()
    parts: Any = context.run(reasoner.stream, given, config, stream_mode="custom", version="v2")
    try:
        while (part := context.run(next, parts, None)) is not None:
            yield part["data"]
    finally:
        context.run(_close, parts)


async def astream_apart(reasoner: Reasoner, given: Any, config: RunnableConfig) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a run; leaving them stops it."""
    events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def follow() -> None:
        try:
            parts: Any = reasoner.astream(given, config, stream_mode="custom", version="v2")
            async for part in parts:
                events.put_nowait(part["data"])
        finally:
            events.put_nowait(None)

    task = asyncio.get_running_loop().create_task(follow(), context=_without_config())
    try:
        while (event := await events.get()) is not None:
            yield event
        await task
    finally:
        if not task.done():
            task.cancel()
            await outlast(task)


def find_writer() -> Callable[[Any], None]:
    """Writes to the custom stream of the graph that this is called in, if there is one."""
    try:
        return get_stream_writer()
    except (RuntimeError, KeyError):  # outside of any runnable, or in one that is no graph's
        return lambda _: None


def _without_config() -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(var_child_runnable_config.set, None)
    return context


def _close(parts: Any) -> None:
    parts.close()
