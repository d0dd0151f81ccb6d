"""NoWait: words of reflection are never written (arXiv 2506.08343)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nr_agent.policies.baselines.protocol import Line
from nr_agent.policies.baselines.texts import word_ids


@dataclass(frozen=True)
class NoWait:
    """Suppress the tokens of these words, as long as the model thinks.

    Attributes:
        words: the paper's list.
    """

    words: tuple[str, ...] = (
        *("wait", "alternatively", "hmm", "but", "however", "alternative", "another", "check", "double-check", "oh"),
        *("maybe", "verify", "other", "again", "now", "ah", "any"),
    )
    name: str = "nowait"

    def think(self, line: Line) -> None:
        """Think without them."""
        banned = word_ids(line.codec, self.words)
        sampling = replace(line.sampling, suppress=(*line.sampling.suppress, *banned))
        while line.think(sampling=sampling) is not None:
            pass
