"""Detectors that read no channels: something else says at which steps they raise events."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nr_agent.detection.protocol import Look
from nr_agent.engine.protocol import Segment, TapLayout, TapPlan
from nr_agent.events import AnyFailureEvent, Evidence, FailureEvent, Level

if TYPE_CHECKING:
    from torch import Tensor

Scores = Mapping[Level, float]

_KINDS: dict[Level, str] = {"intra_step": "calculation", "inter_step": "stagnation", "instance": "overthinking"}
_EXCERPT = 200


class TimedDetector(ABC):
    """Asks for the scores of every step, and raises events at or above a threshold.

    Args:
        name: its id.
        fingerprint: of the model that it watches.
        threshold: a score at or above it raises an event.
        kinds: kinds of the events by level, where they differ from calculation, stagnation and overthinking.
    """

    def __init__(
        self, name: str, fingerprint: str, threshold: float = 0.5, kinds: Mapping[Level, str] | None = None
    ) -> None:
        self.id = name
        self.fingerprint = fingerprint
        self.plan: TapPlan = NoChannels()
        self.threshold = threshold
        self.kinds = {**_KINDS, **(kinds or {})}

    def observe(self, episode_id: str) -> TimedObserver:
        """Begin to watch an episode."""
        return TimedObserver(self, episode_id)

    @abstractmethod
    def scores(self, seen: Sequence[str], segment: Segment, text: str, *, key: str) -> Scores:
        """The scores of a step.

        Args:
            seen: the texts of the steps before.
            segment: the step's.
            text: its text.
            key: what chance may be drawn by: the same wherever the same was thought, in this run and in another.
        """


class TimedObserver:
    """One episode's watch. Its only memory is the texts that it has looked at: a fork has the same."""

    def __init__(self, detector: TimedDetector, episode_id: str, seen: Sequence[str] = ()) -> None:
        self.detector = detector
        self.episode_id = episode_id
        self.seen = list(seen)

    def look(self, segment: Segment, *, step: int, text: str) -> Look:
        """Score the step and raise an event a level at or above the threshold."""
        key = "\0".join([f"{segment.start}/{step}", *self.seen, text])
        scores = dict(self.detector.scores(self.seen, segment, text, key=key))
        self.seen.append(text)
        raised = [level for level, score in scores.items() if score >= self.detector.threshold]
        return Look(scores, [self._event(level, scores[level], segment, step, text) for level in raised])

    def fork(self) -> TimedObserver:
        """An independent watch with the same memory."""
        return TimedObserver(self.detector, self.episode_id, self.seen)

    def _event(self, level: Level, score: float, segment: Segment, step: int, text: str) -> AnyFailureEvent:
        return FailureEvent.from_state(
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.episode_id}/{step}/{level}")),
                "level": level,
                "kind": self.detector.kinds[level],
                "step": step,
                "position": max(segment.start + len(segment.ids) - 2, 0),
                "score": score,
                "threshold": self.detector.threshold,
                "detector": self.detector.id,
                "evidence": Evidence(text=text[:_EXCERPT]).model_dump(),
            }
        )


class NoChannels:
    """A tap plan that reads nothing."""

    def install(self, model: Any) -> _EmptyTap:
        """A tap without channels."""
        return _EmptyTap()


class _EmptyTap:
    layout = TapLayout()

    def take(self, rows: int) -> Tensor:
        import torch  # noqa: PLC0415 - only an engine that computes gets here, and it has torch

        return torch.zeros(rows, 0)

    def remove(self) -> None:
        return None
