"""The Mixture of Neurons: the channels that tell of a failure level, and how they were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from nr_agent.events import Level
from nr_agent.neurons.channels import Channel


class Group(BaseModel):
    """The channels of one failure level, the most telling first.

    Attributes:
        level: the failure level.
        ranking: how they were ranked.
        channels: their addresses.
        scores: their ranking scores: positive where a channel is higher in failing steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level
    ranking: Literal["mean_difference", "logit_attribution", "random"]
    channels: list[str]
    scores: list[float]


class MixtureOfNeurons(BaseModel):
    """All groups of a model. A channel may serve several levels; it is read once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: list[Group]

    def only(self, levels: Sequence[Level]) -> MixtureOfNeurons:
        """The groups of some levels."""
        return MixtureOfNeurons(groups=[group for group in self.groups if group.level in levels])

    def channels(self) -> list[Channel]:
        """Every channel once, in a fixed order."""
        return sorted({Channel.parse(address) for group in self.groups for address in group.channels})

    def columns(self, level: Level) -> list[int]:
        """Where the channels of a level stand in `channels()`."""
        order = {str(channel): column for column, channel in enumerate(self.channels())}
        return [order[address] for group in self.groups if group.level == level for address in group.channels]
