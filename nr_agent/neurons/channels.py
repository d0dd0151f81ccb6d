"""A channel's address: `FFN 7:1031` or `head 9:4`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from nr_agent.errors import ChannelError

ChannelKind = Literal["ffn", "head"]

_ADDRESS = re.compile(r"(FFN|head) (\d+):(\d+)")


@dataclass(frozen=True, order=True)
class Channel:
    """One unit that can be read.

    Attributes:
        kind: an FFN neuron, or an attention head.
        layer: decoder layer, from 0.
        index: neuron (input column of the down projection) or head, from 0.
    """

    kind: ChannelKind
    layer: int
    index: int

    def __str__(self) -> str:
        return f"{'FFN' if self.kind == 'ffn' else 'head'} {self.layer}:{self.index}"

    @classmethod
    def parse(cls, address: str) -> Channel:
        """The channel at an address.

        Raises:
            ChannelError: that is no address.
        """
        match = _ADDRESS.fullmatch(address.strip())
        if match is None:
            raise ChannelError(f"{address!r} is no channel", hint="write FFN LAYER:NEURON or head LAYER:HEAD")
        return cls("ffn" if match.group(1) == "FFN" else "head", int(match.group(2)), int(match.group(3)))
