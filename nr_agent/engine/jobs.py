"""A step being thought, and the readings that belong to it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import NamedTuple

import torch
from torch import Tensor

from nr_agent.engine.protocol import EndReason, ExtendRequest, Readings, Segment, TapLayout
from nr_agent.engine.sequences import SequenceState
from nr_agent.episode import Run

MARGIN = 4
"""Tokens searched for a stop string beyond one a byte: tokens without text, and spaces that a decoder strips."""


class Part(NamedTuple):
    """Readings of one pass that belong to a step; cut out of the pass's when they are looked at, and not before.

    An operation on little data costs most in the middle of a pass, where no cache holds what it needs.

    Attributes:
        start: position of the first token that is read.
        values: `[rows, tokens, channels]` of the whole pass.
        row: the step's.
        first: of the row's tokens.
        last: of the row's tokens, exclusive.
    """

    start: int
    values: Tensor
    row: int
    first: int
    last: int

    @property
    def own(self) -> Tensor:
        """`[tokens, channels]`."""
        row = self.values.select(0, self.row)
        return row if self.last - self.first == len(row) else row[self.first : self.last]

    @property
    def positions(self) -> range:
        """Of the tokens."""
        return range(self.start, self.start + self.last - self.first)


class Job:
    """A step being thought: the request, and what came of it so far.

    Args:
        request: what is asked for; the tokens that it inserts are written at once.
        state: the sequence.
        since: passes that were made before the step came.
    """

    def __init__(self, request: ExtendRequest, state: SequenceState, since: int) -> None:
        self.request = request
        self.state = state
        self.since = since
        self.future: Future[Segment] = Future()
        self.start = len(state.ids)
        self.read = state.read
        self.tail = max((len(string.encode()) for string in request.stop.strings), default=0) + MARGIN
        state.ids.extend(request.force)
        self.logprobs: list[float | None] = [None] * len(request.force)
        self.entropies: list[float | None] = [None] * len(request.force)
        self.end: EndReason | None = None
        self.halted = False
        self.failure: Exception | None = None
        self.parts: list[Part] = []

    @property
    def sampled(self) -> int:
        """Tokens that the model has written so far."""
        return len(self.state.ids) - self.start - len(self.request.force)

    @property
    def dropped(self) -> bool:
        """Whether nobody waits for the step any more."""
        return self.future.cancelled() or self.state.closed

    @property
    def provenance(self) -> list[Run]:
        """Who wrote the step's tokens."""
        runs: list[Run] = [("inserted", len(self.request.force)), ("model", self.sampled)]
        return [run for run in runs if run[1]]

    def readings(self, layout: TapLayout) -> Readings:
        """All that was read so far.

        Args:
            layout: the tap's.
        """
        positions = [position for part in self.parts for position in part.positions]
        empty = torch.zeros(0, len(layout.channels))
        return Readings(
            sequence=self.request.ref.id,
            positions=torch.tensor(positions, dtype=torch.long),
            token_ids=torch.tensor([self.state.ids[position] for position in positions], dtype=torch.long),
            values=torch.cat([part.own for part in self.parts]) if self.parts else empty,
        )
