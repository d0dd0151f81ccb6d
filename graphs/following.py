"""Who sees that a run was left between two nodes, and closes its episodes.

A node that is left closes its episode by itself. But a stream may be left, or a task cancelled, while LangGraph itself
is at work, or has not yet taken in what a node did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.config import get_config
from langgraph.errors import GraphDrained

_LEFT = (GeneratorExit, KeyboardInterrupt, asyncio.CancelledError, GraphDrained)


class Follower(BaseCallbackHandler):
    """Follows one run of a graph.

    Args:
        leave: closes an episode whose run nobody follows any more.
    """

    def __init__(self, leave: Callable[[str], None]) -> None:
        self.episodes: set[str] = set()
        self._leave = leave
        self._run: UUID | None = None

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The first that it hears of is the run that it follows."""
        self._run = self._run or run_id

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Close what is open, if the run was left."""
        if run_id == self._run and isinstance(error, _LEFT):
            for episode_id in sorted(self.episodes):
                self._leave(episode_id)


def followed(config: RunnableConfig | None, own: RunnableConfig | None, follower: Follower) -> RunnableConfig:
    """The configuration of a run, with its follower beside the callbacks that LangGraph would take.

    Args:
        config: of the call.
        own: of the graph.
        follower: of the run.
    """
    given = (config or {}).get("callbacks") or (own or {}).get("callbacks")
    given = given or (var_child_runnable_config.get() or {}).get("callbacks")
    if isinstance(given, BaseCallbackManager):
        manager = given.copy()
        manager.add_handler(follower, inherit=True)
        return {**(config or {}), "callbacks": manager}
    return {**(config or {}), "callbacks": [*(given or ()), follower]}


def tell_followers(episode_id: str) -> None:
    """An episode is worked on in the run of the node that this is called in."""
    callbacks = get_config().get("callbacks")
    handlers = callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or ()
    for handler in handlers:
        if isinstance(handler, Follower):
            handler.episodes.add(episode_id)
