"""The sequences of an engine: their tokens, and which slots of the cache they hold."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from nr_agent.engine.cache import SlotCache

SHORTEST = 64
"""Tokens of the shortest slots that a bounded cache is cut into."""

RECENT = 32
"""Passes for which a sequence keeps its slot behind a step while others wait for one: it is likely to go on."""

FILLED, BRIEFLY = 8, 2
"""Rows for each gap between them that is computed along, and for each that will soon be none; else rows move."""

BRIEF = 4
"""Passes behind a step for which the gap that it left is one of those that will soon be none."""


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
        ended: the pass behind which its last step ended.
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
    ended: int = -RECENT
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
        passes: how many passes there have been.
    """

    limit: int
    cache: SlotCache
    states: dict[str, SequenceState] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    passes: int = 0

    def place(self, state: SequenceState, *, urgent: bool = True) -> int | None:
        """Give a sequence a slot, taking it from the one unused longest if none is free.

        Args:
            state: the sequence.
            urgent: take it also from one that is likely to go on in a moment.

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
                state.slot = self._evict(urgent=urgent)
            if state.slot is None:
                return None
            state.cached = 0
        state.used = time.monotonic()
        return state.slot

    def adjoin(self, states: Sequence[SequenceState], tokens: int) -> list[tuple[int, int]]:
        """See that the slots of some rows lie side by side: only then are they read without being copied.

        A few gaps are left, to be filled with rows that nobody asked for. Where there are more, sequences change
        places.

        Args:
            states: of the rows, which take in a token each.
            tokens: the largest length behind the pass.

        Returns:
            Slot of each gap, and the length of what it holds, which a row that fills it must leave alone.
        """
        with self.lock:
            slots = sorted(state.slot for state in states if state.slot is not None)
            if slots[-1] - slots[0] < len(slots):
                return []
            gaps = sorted(set(range(slots[0], slots[-1])) - set(slots))
            holders = {state.slot: state for state in self.states.values() if state.slot is not None}
            filled = [(slot, holders[slot].cached if slot in holders else 0) for slot in gaps]
            enough = BRIEFLY if all(slot in holders and self._returns(holders[slot]) for slot in gaps) else FILLED
            # A row longer than the others would have all of them look further.
            if enough * len(gaps) <= len(slots) and all(length < tokens for _, length in filled):
                return filled
            self._move_together(slots, holders)
            return []

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

    def _evict(self, *, urgent: bool) -> int | None:
        # Steps that wait may lose their slot too: if they kept it, one that waits before them would wait forever.
        idle = [
            state
            for state in self.states.values()
            if state.slot is not None
            and not state.running
            and (urgent or not (state.busy or self.passes - state.ended < RECENT))
        ]
        if not idle:
            return None
        victim = min(idle, key=lambda state: (state.busy, state.used))
        slot, victim.slot, victim.cached = victim.slot, None, 0
        return slot

    def _returns(self, state: SequenceState) -> bool:
        """Whether a sequence is soon to be one of the rows again: it takes tokens in, or is between two steps."""
        return state.running or self.passes - state.ended < BRIEF

    def _move_together(self, slots: list[int], holders: dict[int, SequenceState]) -> None:
        """Bring rows into neighbouring slots, where most of them are already; who was there takes theirs."""
        count = len(slots)
        firsts = [min(slot, slots[-1] + 1 - count) for slot in slots]
        first = max(firsts, key=lambda first: bisect_left(slots, first + count) - bisect_left(slots, first))
        free = iter(sorted(set(range(first, first + count)) - set(slots)))
        for slot in slots:
            if first <= slot < first + count:
                continue
            target, mover = next(free), holders[slot]
            other = holders.get(target)
            try:
                if other is None or not other.cached:
                    self.cache.copy(slot, target, mover.cached)
                else:
                    self.cache.exchange(slot, target, max(mover.cached, other.cached))
            except BaseException:  # some layers may have changed places, and some not
                mover.cached = 0
                if other is not None:
                    other.cached = 0
                raise
            mover.slot = target
            if other is not None:
                other.slot = slot

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
