"""Work that a coroutine leaves to a thread, and does not leave behind when its task is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


async def to_its_end(work: Callable[_Given, _Made], *args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
    """Do short work in a thread; a task that is cancelled meanwhile is so once the work is done.

    A thread cannot be stopped: if nobody waited for it, it would still write when the task has cleaned up.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await outlast(task)
        raise


async def outlast(task: asyncio.Future[Any]) -> None:
    """Wait for some work, however often one is cancelled meanwhile; its own error is nobody's any more."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
