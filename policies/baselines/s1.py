"""s1's budget forcing: thinking is made longer with "Wait" and shorter by force (arXiv 2501.19393)."""

from __future__ import annotations

from dataclasses import dataclass

from nr_agent.policies.baselines.protocol import Line


@dataclass(frozen=True)
class S1:
    """Drop the end of the thinking so many times and write "Wait"; at the budget, force the answer.

    Attributes:
        ignore: how often an end is dropped (`NUM_IGNORE`).
        word: what is written in its place.
        forced: closes the thinking at the budget.
    """

    ignore: int = 1
    word: str = "Wait"
    forced: str = "\n</think>\n\nFinal Answer:"
    name: str = "s1"

    def think(self, line: Line) -> None:
        """Think on behind the first ends."""
        ignored, force = 0, ""
        while (thought := line.think(force=force)) is not None:
            force = ""
            if thought.closing is None:
                continue
            if ignored == self.ignore:
                return
            line.undo(thought.closing)
            if line.room <= 0:
                break
            line.note(self.word)
            ignored, force = ignored + 1, self.word
        line.close(self.forced)
