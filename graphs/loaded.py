"""Engines that chat models have loaded by name and share with their copies."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakSet


class User:
    """Stands for somebody who thinks with a loaded engine; once it is gone, nobody does."""


class Loaded:
    """The engines that a chat model and its copies loaded, each of them once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._engines: dict[str, tuple[Any, WeakSet[User]]] = {}

    def engine(self, model: str, user: User) -> Any:
        """The engine of a model, loaded by the first who asks.

        Args:
            model: its name or folder.
            user: who is to think with it; until it is released, the engine stays.

        Raises:
            ModelError: the model cannot be loaded.
        """
        from nr_agent.models.registry import load_engine  # noqa: PLC0415 - imports torch when it loads

        with self._lock:
            if model not in self._engines:
                self._engines[model] = (load_engine(model), WeakSet())
            engine, users = self._engines[model]
            users.add(user)
            return engine

    def release(self, user: User) -> None:
        """Somebody needs the engines no longer: those that nobody else uses are shut down."""
        with self._lock:
            for model, (engine, users) in list(self._engines.items()):
                users.discard(user)
                if not users:
                    del self._engines[model]
                    engine.shutdown()
