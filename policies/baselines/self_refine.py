"""Self-Refine: the model criticises its answer and writes it again (arXiv 2303.17651)."""

from __future__ import annotations

from dataclasses import dataclass

from nr_agent.answers import extract_answer
from nr_agent.errors import ContextLengthError
from nr_agent.policies.baselines.protocol import Line
from nr_agent.policies.baselines.texts import says


@dataclass(frozen=True)
class SelfRefine:
    """Answer, criticise, answer again; as turns of one conversation, each with its own thinking.

    Attributes:
        rounds: most rounds of critique.
        feedback: asks for the critique; the paper's words for GSM8K, without its examples in code.
        refine: asks for the answer again.
        satisfied: words of a critique that end it.
    """

    rounds: int = 3
    feedback: str = (
        "There may be an error in the solution above. To find the error, go through the solution step by step, and "
        "check if everything looks good. If there is no error, say: it is correct."
    )
    refine: str = (
        "Now rewrite the solution, and correct the error that you found. Give the final answer as \\boxed{...}."
    )
    satisfied: tuple[str, ...] = ("it is correct", "is correct", "no error", "no errors")
    name: str = "self_refine"

    def think(self, line: Line) -> None:
        """Refine until the model is satisfied."""
        current, said = line, _solve(line)
        answer, talk = extract_answer(said), list(line.messages)
        for _ in range(self.rounds):
            try:
                talk += [_turn("assistant", said), _turn("user", self.feedback)]
                critique = _solve(line.turn(talk))
                if says(critique, self.satisfied):
                    break
                talk += [_turn("assistant", critique), _turn("user", self.refine)]
                current = line.turn(talk)
            except ContextLengthError:
                break  # the conversation fills the context: what there is counts
            said = _solve(current)
            answer = extract_answer(said) or answer
        line.keep(current, answer)


def _solve(line: Line) -> str:
    while line.think() is not None:
        pass
    return line.write_answer().strip()


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
