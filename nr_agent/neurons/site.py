"""A place in a model that holds channels: a projection, and how its channels are read off its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from nr_agent.engine.weights import share_of, stored
from nr_agent.errors import ChannelError
from nr_agent.neurons.channels import Channel, ChannelKind, Place

Reader = Callable[[Sequence[Any]], Tensor]
"""Reads channels off what a module is given: `[tokens, channels]` float32."""


@dataclass(frozen=True)
class Site:
    """A projection whose input holds channels.

    Attributes:
        kind: what its channels are.
        layer: decoder layer.
        module: the projection.
        channels: how many channels its input holds.
        width: how many columns belong to a channel: 1 for a neuron, the head's size for a head.
    """

    kind: ChannelKind
    layer: int
    module: nn.Module
    channels: int
    width: int

    @property
    def place(self) -> Place:
        """What tells it from the model's other sites."""
        return self.kind, self.layer, False

    def all(self) -> list[Channel]:
        """Its channels."""
        return [Channel(self.kind, self.layer, index) for index in range(self.channels)]

    def has(self, channel: Channel) -> bool:
        """Whether one of its own place is one of its channels."""
        return channel.index < self.channels

    def column(self, channel: Channel) -> int:
        """A neuron's column of the weight, or a head's number."""
        return channel.index

    def weight(self) -> Tensor:
        """The projection as `[out, in]`."""
        weight = stored(self.module)
        return weight.T if isinstance(self.module, Conv1D) else weight

    def require_whole(self) -> None:
        """See that this process holds all of the input.

        Raises:
            ChannelError: it holds a slice.
        """
        if not isinstance(self.module, nn.Linear | Conv1D):
            return
        if share_of(self.module) is not None:
            raise ChannelError(
                f"what the {self.kind} channels of layer {self.layer} write is spread over processes",
                hint="load the model in one process to look at it",
            )

    def reader(self, channels: Sequence[Channel]) -> Reader:
        """Reads some of its channels; where processes share the projection, 0 for what another one holds.

        Raises:
            ChannelError: the processes share heads.
        """
        share, first = share_of(self.module), 0
        index = torch.tensor([channel.index for channel in channels])
        ours = None
        if share is not None:
            if share.first % self.width or share.last % self.width:
                raise ChannelError(
                    f"the heads of layer {self.layer} are cut apart by {dist.get_world_size(share.group)} processes",
                    hint="spread the model over a number of processes that divides its heads",
                )
            first, last = share.first // self.width, share.last // self.width
            ours = (index >= first) & (index < last)
            index = torch.where(ours, index, first)

        def read(inputs: Sequence[Any]) -> Tensor:
            nonlocal index, ours
            flat: Tensor = inputs[0].reshape(-1, inputs[0].shape[-1])
            if index.device != flat.device:
                index, ours = index.to(flat.device), None if ours is None else ours.to(flat.device)
            # A process of several has its own slice, or (as the layer's plan says) the whole of which it reads a slice.
            wanted = index if flat.shape[-1] == self.channels * self.width else index - first
            if self.width == 1:
                values = flat.index_select(1, wanted).float()
            else:
                values = flat.view(flat.shape[0], -1, self.width).index_select(1, wanted).float().norm(dim=-1)
            return values if ours is None else values * ours

        return read
