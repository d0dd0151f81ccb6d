"""A channel's address: `FFN 7:1031`, `FFN 7:12:301` where a layer has experts, or `head 9:4`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Literal

from nr_agent.errors import ChannelError

ChannelKind = Literal["ffn", "head"]
Place = tuple[ChannelKind, int, bool]
"""Which module of a model a channel is in: kind, layer, and whether it is one of several experts' there."""

_ADDRESS = re.compile(r"(?:FFN (\d+):(?:(\d+):)?(\d+))|(?:head (\d+):(\d+))")


@total_ordering
@dataclass(frozen=True)
class Channel:
    """One unit that can be read.

    Attributes:
        kind: an FFN neuron, or an attention head.
        layer: decoder layer, from 0.
        index: neuron (input column of the down projection) or head, from 0.
        expert: whose neuron it is, from 0, where the FFN is a mixture of experts.
    """

    kind: ChannelKind
    layer: int
    index: int
    expert: int | None = None

    def __str__(self) -> str:
        if self.kind == "head":
            return f"head {self.layer}:{self.index}"
        expert = "" if self.expert is None else f"{self.expert}:"
        return f"FFN {self.layer}:{expert}{self.index}"

    def __lt__(self, other: Channel) -> bool:
        return self._order() < other._order()

    @property
    def place(self) -> Place:
        """The module that it is in."""
        return self.kind, self.layer, self.expert is not None

    @classmethod
    def parse(cls, address: str) -> Channel:
        """The channel at an address.

        Raises:
            ChannelError: that is no address.
        """
        match = _ADDRESS.fullmatch(address.strip())
        if match is None:
            raise ChannelError(
                f"{address!r} is no channel", hint="write FFN LAYER:NEURON, FFN LAYER:EXPERT:NEURON or head LAYER:HEAD"
            )
        layer, expert, neuron, head_layer, head = (None if part is None else int(part) for part in match.groups())
        if layer is not None and neuron is not None:
            return cls("ffn", layer, neuron, expert)
        assert head_layer is not None and head is not None  # noqa: S101 - the other half of the pattern
        return cls("head", head_layer, head)

    def _order(self) -> tuple[str, int, int, int]:
        return self.kind, self.layer, -1 if self.expert is None else self.expert, self.index
