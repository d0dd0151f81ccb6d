"""Who sees that a run was left between two nodes, and closes its episodes.

A node that is left closes its episode by itself. But a stream may be left, or a task cancelled, while LangGraph itself
is at work, or has not yet taken in what a node did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, CallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.config import get_config
from langgraph.errors import GraphDrained

_LEFT = (GeneratorExit, KeyboardInterrupt, asyncio.CancelledError, GraphDrained)


class _Noted(BaseCallbackHandler):
    """Goes along into every node, deaf to all events, and holds the episodes that were worked on."""

    ignore_chain = True

    def __init__(self) -> None:
        self.episodes: set[str] = set()
        self.resumable = False


class _Follower(BaseCallbackHandler):
    """Hears of one run of a graph, and not of what runs in it."""

    def __init__(self, noted: _Noted, leave: Callable[[str], None], clean_up: Callable[[str], object]) -> None:
        self._noted = noted
        self._leave = leave
        self._clean_up = clean_up

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        """Close what is open, if the run was left, or failed where nobody can go on with it."""
        if isinstance(error, _LEFT):
            for episode_id in sorted(self._noted.episodes):
                self._leave(episode_id)
        elif not self._noted.resumable:
            for episode_id in sorted(self._noted.episodes):
                self._clean_up(episode_id)


def followed(
    config: RunnableConfig | None,
    own: RunnableConfig | None,
    leave: Callable[[str], None],
    clean_up: Callable[[str], object],
) -> RunnableConfig:
    """The configuration of a run, with its follower beside the callbacks that LangGraph would take.

    Args:
        config: of the call.
        own: of the graph.
        leave: closes an episode whose run nobody follows any more.
        clean_up: closes what is still open of one whose run has failed: a node beside the one that failed may have
            begun after it.
    """
    given = (config or {}).get("callbacks") or (own or {}).get("callbacks")
    given = given or (var_child_runnable_config.get() or {}).get("callbacks") or []
    manager: BaseCallbackManager = CallbackManager([*given], [*given]) if isinstance(given, list) else given.copy()
    noted = _Noted()
    manager.add_handler(noted, inherit=True)
    manager.add_handler(_Follower(noted, leave, clean_up), inherit=False)
    return {**(config or {}), "callbacks": manager}


def tell_followers(episode_id: str, *, resumable: bool) -> None:
    """An episode is worked on in the run of the node that this is called in; whether that can be gone on with."""
    callbacks = get_config().get("callbacks")
    handlers = callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or ()
    for handler in handlers:
        if isinstance(handler, _Noted):
            handler.episodes.add(episode_id)
            handler.resumable |= resumable
