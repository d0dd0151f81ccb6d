"""NoThinking: the thinking is closed before it begins (arXiv 2504.09858)."""

from __future__ import annotations

from dataclasses import dataclass

from nr_agent.policies.baselines.protocol import Line


@dataclass(frozen=True)
class NoThinking:
    """Write the finished thinking for the model and let it answer, with the tokens that thinking would have had.

    Attributes:
        phrase: the whole thinking; the chat template has opened it.
    """

    phrase: str = "Okay, I think I have finished thinking.\n</think>\n\n"
    name: str = "nothinking"

    def think(self, line: Line) -> None:
        """Close at once."""
        line.close(self.phrase, answer_tokens=line.room)
