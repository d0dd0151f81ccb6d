"""A detector whose scores are given: by step, or as a function of the step's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nr_agent.detection.timed import Scores, TimedDetector
from nr_agent.engine.protocol import Segment
from nr_agent.events import Level

Script = Sequence[Scores] | Callable[[str], Scores]
"""Scores of the first step, the second, ...; or a function of a step's text."""


class ScriptedDetector(TimedDetector):
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
        super().__init__(name, fingerprint, threshold, kinds)
        self._scores = scores

    def scores(self, seen: Sequence[str], segment: Segment, text: str, *, key: str) -> Scores:
        """The scores of a look at a step."""
        if callable(self._scores):
            return self._scores(text)
        return self._scores[len(seen)] if len(seen) < len(self._scores) else {}
