"""A KV cache of slots: a length per row, writes in place, rollback by length, fork by copy.

Transformers' own caches hold one length for the whole batch, so rows that stop at different tokens cannot
keep what they computed. Here each sequence owns a slot. A forward pass names the slots of its rows and where
each row's tokens go; what lies beyond a row's length is never visible to it, so padding may be written there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache


class SlotCache(Cache):
    """Keys and values of many sequences, `[slots, heads, capacity, head_dim]` a layer.

    The arena is allocated when the first keys arrive, and doubles when a sequence or a slot needs room.

    Args:
        layers: number of attention layers.
        slots: slots to begin with.
        capacity: tokens a slot to begin with.
        room: most tokens of all slots together; None for no bound. While the arena grows, one layer of it is
            there twice.
    """

    def __init__(self, layers: int, *, slots: int = 4, capacity: int = 256, room: int | None = None) -> None:
        super().__init__(layers=[])
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers
        self.room = room
        self.capacity = capacity if room is None else min(capacity, room)
        self.slots = slots if room is None else min(slots, room // self.capacity)
        self._rows: slice | Tensor = slice(0, 0)
        self._row_index = torch.zeros(0, dtype=torch.long)
        self._positions = torch.zeros(0, 0, dtype=torch.long)
        self._view = 0

    def begin(self, slots: list[int], positions: Tensor, view: int) -> None:
        """Say where the next forward pass reads and writes.

        Args:
            slots: slot of each row of the batch.
            positions: `[rows, tokens]`, absolute position of each token of the batch.
            view: how many positions the rows see: the largest length after the pass.
        """
        self._make_room(max(slots) + 1, view)
        self._row_index = torch.tensor(slots, device=positions.device)[:, None]
        first = slots[0]
        # Neighbouring slots are read as a view; others have to be gathered.
        adjacent = slots == list(range(first, first + len(slots)))
        self._rows = slice(first, first + len(slots)) if adjacent else self._row_index[:, 0]
        self._positions = positions
        self._view = view

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Write the keys and values of this pass and return what its rows can see."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        if keys is None or values is None:
            keys = self.keys[layer_idx] = self._allocate(key_states)
            values = self.values[layer_idx] = self._allocate(value_states)
        # The layers of a model can be on several devices.
        rows, index, positions = (_beside(where, keys) for where in (self._rows, self._row_index, self._positions))
        # Advanced indices around a slice put their dimensions first: [rows, tokens, heads, head_dim].
        keys[index, :, positions] = key_states.transpose(1, 2)
        values[index, :, positions] = value_states.transpose(1, 2)
        return keys[rows, :, : self._view], values[rows, :, : self._view]

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a slot into another."""
        self._make_room(max(source, target) + 1, length)
        for tensor in (*self.keys, *self.values):
            if tensor is not None:
                tensor[target, :, :length] = tensor[source, :, :length]

    @torch.inference_mode()
    def clear(self, slot: int) -> None:
        """Forget what a slot holds."""
        for tensor in (*self.keys, *self.values):
            if tensor is not None:
                tensor[slot] = 0

    @torch.inference_mode()
    def exchange(self, one: int, other: int, length: int) -> None:
        """Let the first `length` positions of two slots change places."""
        self._make_room(max(one, other) + 1, length)
        for tensor in (*self.keys, *self.values):
            if tensor is not None:
                kept = tensor[one, :, :length].clone()
                tensor[one, :, :length] = tensor[other, :, :length]
                tensor[other, :, :length] = kept

    def capacity_for(self, tokens: int) -> int:
        """The capacity that slots of this many tokens are given."""
        capacity = self.capacity
        while capacity < tokens:
            capacity *= 2
        return capacity if self.room is None else min(capacity, self.room)

    def resize(self, slots: int, capacity: int) -> None:
        """Give the arena another shape; what fits into it is kept.

        Where the memory runs out half-way, the arena is as large as the smallest of what is there.
        """
        shapes = [(slots, capacity)]
        try:
            for store in (self.keys, self.values):
                for layer, old in enumerate(store):
                    if old is None or (old.shape[0] == slots and old.shape[2] == capacity):
                        continue
                    shapes.append((old.shape[0], old.shape[2]))
                    new = old.new_zeros(slots, old.shape[1], capacity, old.shape[3])
                    kept, seen = min(slots, old.shape[0]), min(capacity, old.shape[2])
                    new[:kept, :, :seen] = old[:kept, :, :seen]
                    store[layer] = new
                    shapes.pop()
        finally:
            self.slots, self.capacity = (min(sizes) for sizes in zip(*shapes, strict=True))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Length of the view; positions are always given explicitly, so no model derives them from it."""
        return self._view - self._positions.shape[1] if self._positions.numel() else 0

    @property
    def nbytes(self) -> int:
        """Memory that the arena takes."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values) if tensor is not None)

    def _allocate(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.slots, like.shape[1], self.capacity, like.shape[3])

    def _make_room(self, slots: int, tokens: int) -> None:
        if slots <= self.slots and tokens <= self.capacity:
            return
        capacity, wanted = self.capacity_for(tokens), self.slots
        while wanted < slots:
            wanted *= 2
        self.resize(wanted if self.room is None else min(wanted, self.room // capacity), capacity)


def _beside(index: Any, tensor: Tensor) -> Any:
    return index.to(tensor.device) if isinstance(index, Tensor) else index


def attention_mask(
    positions: Tensor, view: int, *, window: int | None = None, additive: torch.dtype | None = None
) -> Tensor:
    """Which cached positions each token of a batch may see.

    Args:
        positions: `[rows, tokens]`, absolute.
        view: number of cached positions.
        window: sliding window, in tokens; None sees all of the past.
        additive: dtype of an additive mask (for eager attention); None gives a boolean one (for sdpa).

    Returns:
        `[rows, 1, tokens, view]`: True (or 0) where the token may look.
    """
    cached = torch.arange(view, device=positions.device)
    seen = cached <= positions[..., None]
    if window is not None:
        seen &= cached > positions[..., None] - window
    seen = seen[:, None]
    if additive is None:
        return seen
    return torch.zeros(seen.shape, dtype=additive, device=seen.device).masked_fill_(~seen, torch.finfo(additive).min)
