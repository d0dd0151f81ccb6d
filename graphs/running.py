"""How nodes run: in a thread, or in a coroutine whose task can be cancelled at any time.

Every node has both ways. A node that only had the first would run on in its thread when its task is cancelled, with
nobody to clean up behind it. Here the channels that LangGraph keeps become the state that a node sees.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.runtime import Runtime, get_runtime

from nr_agent.engine.protocol import ExtendRequest, Segment
from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.state import ReasonerState, pack, unpack
from nr_agent.graphs.threads import to_its_end


class Node(Runnable[Any, dict[str, Any]]):
    """Both ways of a node, as they are: LangGraph has traced the node and set its context before either is called.

    A `RunnableLambda` would do that once more, and look at its functions' signatures at every call, which takes longer
    than most of our nodes.

    Args:
        run: gets the channels, gives their update.
        arun: the same as a coroutine.
        name: of the node.
    """

    def __init__(
        self,
        run: Callable[[Any], dict[str, Any]],
        arun: Callable[[Any], Awaitable[dict[str, Any]]],
        name: str,
    ) -> None:
        self.run = run
        self.arun = arun
        self.name = name

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        """Run in the caller's thread."""
        return self.run(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        """Run as a coroutine."""
        return await self.arun(input)


class Quick(Protocol):
    """A node that is soon done."""

    parts: Parts

    def __call__(self, state: ReasonerState, runtime: Runtime[ReasonerContext]) -> dict[str, Any]:
        """The state's update."""
        ...


class Generating(Protocol):
    """A node that extends a sequence: what is before it and after it, so that both ways to wait share them."""

    parts: Parts
    beside_others: bool

    def prepare(self, state: Any) -> ExtendRequest | None:
        """What to generate; None for nothing."""
        ...

    def finish(self, state: Any, segment: Segment | None, seconds: float) -> dict[str, Any]:
        """The state's update."""
        ...


def quick(node: Quick, name: str) -> Node:
    """A node that is soon done: a task that is cancelled meanwhile leaves its episode closed."""
    return Node(partial(_do, node), partial(_ado, node), name)


def waiting(node: Generating, name: str) -> Node:
    """A node that waits for the engine: leaving it by an exception, or cancelling its task, stops the engine."""
    return Node(partial(_run, node), partial(_arun, node), name)


def _do(node: Quick, channels: Any) -> dict[str, Any]:
    return pack(channels, node(_state(channels), get_runtime(ReasonerContext)))


async def _ado(node: Quick, channels: Any) -> dict[str, Any]:
    worked_on: list[str] = []

    def work() -> dict[str, Any]:
        update = _do(node, channels)
        worked_on.append(unpack({**channels, **update})["episode_id"])
        return update

    try:
        return await to_its_end(work)
    except asyncio.CancelledError:
        for episode_id in worked_on:
            await to_its_end(node.parts.leave, episode_id)
        raise


def _run(node: Generating, channels: Any) -> dict[str, Any]:
    state = unpack(channels)
    with node.parts.guard(state["episode_id"], beside_others=node.beside_others):
        request = node.prepare(state)
        started = time.monotonic()
        segment = None
        if request is not None:
            future = node.parts.engine.submit(request)
            try:
                segment = future.result()
            except BaseException:
                future.cancel()
                raise
        return pack(channels, node.finish(state, segment, time.monotonic() - started))


async def _arun(node: Generating, channels: Any) -> dict[str, Any]:
    state = unpack(channels)
    # A node of the Studio's loads its parts now, which would hold everybody else up.
    parts = node.parts if "parts" in vars(node) else await asyncio.to_thread(getattr, node, "parts")
    async with parts.aguard(state["episode_id"], beside_others=node.beside_others):
        request = await to_its_end(node.prepare, state)
        started = time.monotonic()
        segment = None
        if request is not None:
            segment = await asyncio.wrap_future(parts.engine.submit(request))
        return pack(channels, await to_its_end(_finish, node, state, segment, time.monotonic() - started))


def _finish(node: Generating, state: Any, segment: Segment | None, seconds: float) -> dict[str, Any]:
    update = node.finish(state, segment, seconds)
    node.parts.settle()
    return update


def _state(channels: Any) -> ReasonerState:
    state: Any = unpack(channels)
    made: ReasonerState = state
    return made
