"""What a baseline is: a published way to think, written against one line of thought.

The reasoner's graph opens the episode, has the answer written and records it, for every arm in the same way; a baseline
decides how it thinks in between. Everything that it generates is recorded and counted: probes and samples too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nr_agent.engine.protocol import Margin, Monitor, Sampling, Segment, TextCodec
from nr_agent.tokens import STEP_END


@dataclass(frozen=True)
class Thought:
    """A stretch of thinking.

    Attributes:
        segment: what the engine gave, forced tokens first.
        text: of all of it.
        closing: absolute position at which the model closed its thinking; None if it did not.
    """

    segment: Segment
    text: str
    closing: int | None


class Line(Protocol):
    """A line of thought: goes on, is probed beside, taken back, and closed."""

    @property
    def codec(self) -> TextCodec:
        """Text to ids and back."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How the run draws its tokens."""
        ...

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The conversation that it answers, as chat templates take it."""
        ...

    @property
    def seed(self) -> int:
        """Seed of its draws."""
        ...

    @property
    def room(self) -> int:
        """How many tokens of thinking its budget and the context still allow. Probes and samples are not budgeted."""
        ...

    @property
    def position(self) -> int:
        """Its length, in tokens."""
        ...

    @property
    def over(self) -> bool:
        """Whether its thinking is closed."""
        ...

    def think(
        self,
        *,
        force: str = "",
        strings: Sequence[str] = (STEP_END,),
        margins: Sequence[Margin] = (),
        monitor: Monitor | None = None,
        max_new: int | None = None,
        sampling: Sampling | None = None,
        flush: bool = False,
    ) -> Thought | None:
        """Go on until one of these strings, a margin, a monitor's word, a length or the closing.

        Args:
            force: text that is put in first.
            strings: as in `StopSpec`.
            margins: as in `StopSpec`.
            monitor: as in `StopSpec`.
            max_new: most tokens, instead of what the budget gives a step.
            sampling: instead of the run's.
            flush: read the last token, too.

        Returns:
            None where the line is at its end: closed, or without room.
        """
        ...

    def undo(self, to: int) -> None:
        """Take back what was thought from an absolute position on; it stays counted."""
        ...

    def probe(
        self, text: str, *, at: int | None = None, strings: Sequence[str] = (), max_new: int, sampling: Sampling
    ) -> Segment | None:
        """What the model would write behind a text, in a fork that is given up at once.

        Args:
            text: is put in first.
            at: where to fork; at the line's end by default.
            strings: as in `StopSpec`.
            max_new: most tokens.
            sampling: how they are drawn.

        Returns:
            None where the context has no room for it.
        """
        ...

    def close(self, text: str, *, answer: str | None = None, answer_tokens: int | None = None) -> None:
        """Close the thinking with a text that holds `</think>`; the answer follows.

        Args:
            text: is put in.
            answer: what the text already answers; then nothing more is written.
            answer_tokens: most tokens of the answer, instead of the budget's.
        """
        ...

    def note(self, text: str) -> None:
        """Put an intervention on record: this text goes in with the next thought to make the model look again."""
        ...

    def sample(self, seed: int) -> Line:
        """Another line from the problem on, with the whole budget and its own draws."""
        ...

    def turn(self, messages: Sequence[Mapping[str, Any]]) -> Line:
        """Another line for a conversation that goes on, with the whole budget."""
        ...

    def write_answer(self) -> str:
        """Have the answer written, the thinking closed first where it is open; the text behind the thinking."""
        ...

    def keep(self, line: Line, answer: str | None) -> None:
        """Make another line the episode's, with this answer; all others are given up. It ends the thinking."""
        ...


class Baseline(Protocol):
    """A published way to think. Its fields are its parameters."""

    @property
    def name(self) -> str:
        """How the arm is called."""
        ...

    def think(self, line: Line) -> None:
        """Think until the line is closed, or at its end: then the graph closes it."""
        ...


GREEDY = Sampling(temperature=0.0)


def sampled(codec: TextCodec, segment: Segment) -> tuple[list[int], list[float], str]:
    """The tokens that the model drew, with their log-probabilities, and their text."""
    drawn = [(i, p) for i, p in zip(segment.ids, segment.logprobs, strict=True) if p is not None]
    ids = [token for token, _ in drawn]
    return ids, [logprob for _, logprob in drawn], codec.decode(ids)
