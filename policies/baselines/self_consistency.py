"""Self-consistency: several samples, and the answer that most of them give (arXiv 2203.11171)."""

from __future__ import annotations

from dataclasses import dataclass

from nr_agent.answers import extract_answer
from nr_agent.errors import ConfigurationError
from nr_agent.policies.baselines.protocol import Line
from nr_agent.policies.baselines.texts import same_answer


@dataclass(frozen=True)
class SelfConsistency:
    """Solve the problem several times and vote.

    Attributes:
        samples: how many (`k`).
    """

    samples: int = 8
    name: str = "self_consistency"

    def think(self, line: Line) -> None:
        """Sample and vote; of equally many the first wins.

        Raises:
            ConfigurationError: sampling is greedy, so that all samples would be one.
        """
        if not line.sampling.temperature:
            raise ConfigurationError(
                "self_consistency votes among samples, and greedy ones are equal", hint="raise the temperature"
            )
        lines = [line, *(line.sample(line.seed + number) for number in range(1, self.samples))]
        answers = []
        for one in lines:
            while one.think() is not None:
                pass
            answers.append(extract_answer(one.write_answer()))
        votes = [sum(_equal(mine, other) for other in answers) if mine else 0 for mine in answers]
        best = votes.index(max(votes))
        line.keep(lines[best], answers[best])


def _equal(first: str | None, second: str | None) -> bool:
    return first is not None and second is not None and same_answer(first, second)
