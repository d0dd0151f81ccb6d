"""Answer convergence: the thinking ends once its answer has stayed the same for some sentences (arXiv 2506.02536)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nr_agent.policies.baselines.protocol import GREEDY, Line, sampled
from nr_agent.policies.baselines.texts import CLOSING, SENTENCE_ENDS, boxed, same_answer
from nr_agent.tokens import ANSWER_LEAD


@dataclass(frozen=True)
class AnswerConvergence:
    r"""Have an answer written behind each sentence, greedily, and end when the last ones are equal.

    Attributes:
        agree: how many in a row (`k`).
        probe: closes the thinking in the fork and leads to the answer.
        probe_tokens: most tokens of an answer.
    """

    agree: int = 10
    probe: str = f"{CLOSING}{ANSWER_LEAD}"
    probe_tokens: int = 20
    name: str = "answer_convergence"

    def think(self, line: Line) -> None:
        """Ask behind every sentence."""
        answers: list[str] = []
        while (thought := line.think(strings=SENTENCE_ENDS)) is not None:
            if thought.closing is not None or not thought.text.strip():
                continue  # an empty line is no sentence
            answers.append(self._ask(line, strings=("}",)))
            last = answers[-self.agree :]
            if len(last) == self.agree and all(one and same_answer(one, last[-1]) for one in last):
                line.close(CLOSING)

    def _ask(self, line: Line, strings: Sequence[str]) -> str:
        asked = line.probe(self.probe, strings=strings, max_new=self.probe_tokens, sampling=GREEDY)
        if asked is None:
            return ""
        answer = boxed(sampled(line.codec, asked)[2])
        # The first brace need not close the box: \boxed{\frac{1}{2}}.
        return self._ask(line, ()) if not answer and asked.end == "stop_string" else answer
