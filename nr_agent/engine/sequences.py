"""The sequences of an engine: their tokens, and which slots of the cache they hold."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field


@dataclass
class SequenceState:
    """What the engine knows of a sequence.

    Attributes:
        ids: its tokens: the truth.
        seed: keys its draws.
        cached: tokens whose keys and values are in its slot.
        read: positions whose readings have been delivered.
        slot: its slot in the cache, None while it has none.
        used: when it was last extended, for eviction.
        busy: whether a step is waiting or being thought.
        running: whether its slot is being written to, so that nobody may take it.
        closed: whether it was closed while busy; it goes when its step has left the batch.
    """

    ids: list[int]
    seed: int
    cached: int = 0
    read: int = 0
    slot: int | None = None
    used: float = 0.0
    busy: bool = False
    running: bool = False
    closed: bool = False


@dataclass
class Sequences:
    """All sequences of an engine, and which slots are free."""

    limit: int
    states: dict[str, SequenceState] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def place(self, state: SequenceState) -> int | None:
        """Give a sequence a slot, taking it from the one unused longest if none is free.

        Returns:
            The slot, or None while every slot is being written to.
        """
        if state.slot is None:
            taken = {other.slot for other in self.states.values() if other.slot is not None}
            free = next((slot for slot in range(self.limit) if slot not in taken), None)
            state.slot = self._evict() if free is None else free
            state.cached = 0
        state.used = time.monotonic()
        return state.slot

    def _evict(self) -> int | None:
        # Steps that wait may lose their slot too: if they kept it, one that waits before them would wait forever.
        idle = [state for state in self.states.values() if state.slot is not None and not state.running]
        if not idle:
            return None
        victim = min(idle, key=lambda state: (state.busy, state.used))
        slot, victim.slot, victim.cached = victim.slot, None, 0
        return slot
