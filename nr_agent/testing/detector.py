"""A detector whose scores are given: by step, or as a function of the step's text."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nr_agent.detection.protocol import Look
from nr_agent.engine.protocol import Segment, TapLayout
from nr_agent.events import AnyFailureEvent, Evidence, FailureEvent, Level

if TYPE_CHECKING:
    from torch import Tensor

Scores = Mapping[Level, float]
Script = Sequence[Scores] | Callable[[str], Scores]
"""Scores of the first step, the second, ...; or a function of a step's text."""

_KINDS: dict[Level, str] = {"intra_step": "calculation", "inter_step": "stagnation", "instance": "overthinking"}
_EXCERPT = 200


class ScriptedDetector:
    """Gives the scores that it was told to give, and raises real events where they cross the threshold.

    It reads no channels, so it watches any engine: with a real one it is an oracle, or a detector at random times.

    A list is followed look by look; behind its end, and for levels that it does not name, nothing is scored.

    Args:
        scores: what to score.
        threshold: a score at or above it raises an event.
        kinds: kinds of the events by level, where they differ from calculation, stagnation and overthinking.
        fingerprint: of the model that it says it was made for; `ScriptedEngine()`'s by default.
        name: its id.

    Example:
        >>> detector = ScriptedDetector(lambda text: {"intra_step": 0.9 if "2+2=5" in text else 0.1})
    """

    def __init__(
        self,
        scores: Script,
        *,
        threshold: float = 0.5,
        kinds: Mapping[Level, str] | None = None,
        fingerprint: str = "scripted:scripted",
        name: str = "scripted-detector",
    ) -> None:
        self.id = name
        self.fingerprint = fingerprint
        self.plan = NoChannels()
        self.threshold = threshold
        self.kinds = {**_KINDS, **(kinds or {})}
        self._scores = scores

    def observe(self, episode_id: str) -> ScriptedObserver:
        """Begin to watch an episode."""
        return ScriptedObserver(self, episode_id)

    def score(self, look: int, text: str) -> Scores:
        """The scores of a look at a step."""
        if callable(self._scores):
            return self._scores(text)
        return self._scores[look] if look < len(self._scores) else {}


class ScriptedObserver:
    """One episode's watch. Its only memory is the texts that it has looked at: a fork has the same."""

    def __init__(self, detector: ScriptedDetector, episode_id: str, seen: Sequence[str] = ()) -> None:
        self.detector = detector
        self.episode_id = episode_id
        self.seen = list(seen)

    def look(self, segment: Segment, *, step: int, text: str) -> Look:
        """Score the step and raise an event a level at or above the threshold."""
        scores = {level: float(score) for level, score in self.detector.score(len(self.seen), text).items()}
        self.seen.append(text)
        raised = {level: score for level, score in scores.items() if score >= self.detector.threshold}
        position = max(segment.start + len(segment.ids) - 2, 0)
        return Look(scores, [self._event(level, score, step, position, text) for level, score in raised.items()])

    def fork(self) -> ScriptedObserver:
        """An independent watch with the same memory."""
        return ScriptedObserver(self.detector, self.episode_id, self.seen)

    def _event(self, level: Level, score: float, step: int, position: int, text: str) -> AnyFailureEvent:
        return FailureEvent.from_state(
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.episode_id}/{step}/{level}")),
                "level": level,
                "kind": self.detector.kinds[level],
                "step": step,
                "position": position,
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
