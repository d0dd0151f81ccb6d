"""What a detector is to the graph: it looks at each step as it arrives and raises events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from nr_agent.engine.protocol import Segment, TapPlan
from nr_agent.episode import ReadingSummary
from nr_agent.events import FailureEvent, Level


@dataclass
class Look:
    """What a detector made of one step.

    Attributes:
        scores: a score a level, 0 to 1, whether or not it crossed its threshold.
        events: the failures it saw, at most one a level.
        summaries: the step's readings in short, for the store.
    """

    scores: dict[Level, float] = field(default_factory=dict)
    events: list[FailureEvent] = field(default_factory=list)
    summaries: list[ReadingSummary] = field(default_factory=list)


class Observer(Protocol):
    """One episode's watch: looks at its segments in order and remembers what it needs."""

    def look(self, segment: Segment, *, step: int, text: str) -> Look:
        """Look at the segment that made step `step`, whose text is `text`."""
        ...

    def fork(self) -> Observer:
        """An independent watch with the same memory, for a branch."""
        ...


class Detector(Protocol):
    """Small models that watch readings. Made for one model: `fingerprint` must be the engine's."""

    id: str
    fingerprint: str
    plan: TapPlan

    def observe(self, episode_id: str) -> Observer:
        """Begin to watch an episode. Events' ids derive from the episode's, so that a repeated look repeats them."""
        ...


@runtime_checkable
class Calibrated(Protocol):
    """A detector that knows its threshold for more than one share of false alarms."""

    def at(self, alarms: Mapping[Level, float]) -> Detector:
        """The same detector where so large a share of good traces may be disturbed, by level."""
        ...
