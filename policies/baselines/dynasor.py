"""Dynasor-CoT: an answer is asked for now and then, and the same one several times ends it (arXiv 2412.20993)."""

from __future__ import annotations

from dataclasses import dataclass

from nr_agent.engine.protocol import Sampling
from nr_agent.policies.baselines.protocol import Line, sampled
from nr_agent.policies.baselines.texts import boxed, same_answer, says, spells_control


@dataclass(frozen=True)
class Dynasor:
    r"""Probe every `chunk` tokens; end when the last `agree` answers are equal, certain and not empty.

    Attributes:
        agree: 8 is mild, 5 low, 3 mid, 2 high.
        chunk: tokens between two probes.
        probe: what an answer is asked with.
        probe_tokens: tokens of an answer.
        doubts: words in a probe that make its answer uncertain.
        answer: how the answer is then given.
    """

    agree: int = 3
    chunk: int = 64
    probe: str = "... Oh, I suddenly got the answer to the whole problem, **Final Answer**\n\n\\[ \\boxed{"
    probe_tokens: int = 20
    doubts: tuple[str, ...] = ("wait", "hold", "but", "okay", "no", "hmm")
    answer: str = (
        "\n\n...</think>\n Oh, I have got the answer to the whole problem\n**Final Answer:**\n\\[\n \\boxed{%s}\n\\]"
    )
    name: str = "dynasor"

    def think(self, line: Line) -> None:
        """Probe at every chunk."""
        answers: list[str] = []  # empty where there was none, or a doubt
        while (thought := line.think(strings=(), max_new=self.chunk)) is not None:
            if thought.closing is not None:
                continue
            asked = line.probe(self.probe, max_new=self.probe_tokens, sampling=Sampling(temperature=0.6, top_p=0.95))
            text = "" if asked is None else sampled(line.codec, asked)[2]
            answer = boxed(text)
            # What is put in may hold control tokens, and is not to get them from a problem that the model repeats.
            doubtful = says(text, self.doubts) or spells_control(line.codec, answer)
            answers.append("" if doubtful else answer)
            last = answers[-self.agree :]
            if len(last) == self.agree and all(one and same_answer(one, last[-1]) for one in last):
                line.close(self.answer % last[-1], answer=last[-1])
