"""The sequences of an engine: their tokens, and which slots of the cache they hold."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from nr_agent.engine.cache import SlotCache

SHORTEST = 64
"""Tokens of the shortest slots that a bounded cache is cut into."""


@dataclass(eq=False)
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
    """All sequences of an engine, and which slots of its cache they hold.

    Attributes:
        limit: most slots.
        cache: the arena. Where its room is bounded, longer slots are fewer.
        states: the sequences by id.
        lock: held while states or slots are changed.
    """

    limit: int
    cache: SlotCache
    states: dict[str, SequenceState] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def place(self, state: SequenceState) -> int | None:
        """Give a sequence a slot, taking it from the one unused longest if none is free.

        Returns:
            The slot, or None while there is no room beside the sequences whose slots are being written to.
        """
        running = [other for other in self.states.values() if other.running and other is not state]
        longest = max(len(other.ids) for other in (*running, state)) + 1
        if len(running) >= self._slots(longest):
            return None
        if state.slot is None:
            state.slot = self._free(longest)
            if state.slot is None:
                state.slot = self._evict()
            state.cached = 0
        state.used = time.monotonic()
        return state.slot

    def fits(self, rows: int, tokens: int) -> bool:
        """Whether so many slots of so many tokens are within the cache's bounds."""
        return rows <= self._slots(tokens)

    def stretch(self, tokens: int) -> None:
        """Make every slot long enough for this many tokens; where room is bounded, some lose theirs for it.

        The caller sees to it that those which are being written to still fit.
        """
        if self.cache.room is not None and tokens > self.cache.capacity:
            with self.lock:
                self._reshape(self.cache.capacity_for(tokens))

    def _slots(self, tokens: int) -> int:
        room = self.cache.room
        # A capacity that nobody needs any more does not count: it is given up when there is no free slot.
        return self.limit if room is None else min(self.limit, room // _capacity(tokens, room))

    def _free(self, longest: int) -> int | None:
        free = self._unused()
        if free is None and self.cache.room is not None:
            capacity = _capacity(longest, self.cache.room)
            if 2 * capacity <= self.cache.capacity:  # slots are longer than anybody who is running needs
                self._reshape(capacity)
                free = self._unused()
        return free

    def _unused(self) -> int | None:
        room = self.cache.room
        count = self.limit if room is None else min(self.limit, room // self.cache.capacity)
        taken = {state.slot for state in self.states.values() if state.slot is not None}
        return next((slot for slot in range(count) if slot not in taken), None)

    def _evict(self) -> int | None:
        # Steps that wait may lose their slot too: if they kept it, one that waits before them would wait forever.
        idle = [state for state in self.states.values() if state.slot is not None and not state.running]
        if not idle:
            return None
        victim = min(idle, key=lambda state: (state.busy, state.used))
        slot, victim.slot, victim.cached = victim.slot, None, 0
        return slot

    def _reshape(self, capacity: int) -> None:
        """Longer slots, of which there are fewer, or the other way round: who was used last keeps theirs."""
        assert self.cache.room is not None  # noqa: S101 - the callers looked
        count = min(self.limit, self.cache.room // capacity)
        holders = [state for state in self.states.values() if state.slot is not None]
        holders.sort(key=lambda state: (state.running, state.busy, state.used), reverse=True)
        kept = [state for state in holders if state.running or state.cached <= capacity][:count]
        for state in holders:
            if state not in kept:
                state.slot, state.cached = None, 0
        free = sorted(set(range(count)) - {state.slot for state in kept})
        for state in kept:
            if state.slot is not None and state.slot >= count:
                target = free.pop(0)
                if state.cached:
                    self.cache.copy(state.slot, target, state.cached)
                state.slot = target
        self.cache.resize(1 + max((state.slot or 0 for state in kept), default=0), capacity)


def _capacity(tokens: int, room: int) -> int:
    capacity = SHORTEST
    while capacity < tokens:
        capacity *= 2
    return min(capacity, room)
