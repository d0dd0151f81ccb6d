"""DEER: a trial answer at each turn of the thinking, and an end at the first confident one (arXiv 2504.15895)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nr_agent.engine.protocol import Segment
from nr_agent.policies.baselines.protocol import GREEDY, Line, sampled
from nr_agent.policies.baselines.texts import CLOSING, position_of
from nr_agent.tokens import STEP_END


@dataclass(frozen=True)
class Deer:
    r"""Stop where the model would turn ("Wait"), have an answer tried, and end the thinking if it is confident.

    Attributes:
        words: where the thinking turns.
        trial: what an answer is tried with.
        trial_tokens: most tokens of a trial answer.
        threshold: mean probability of the trial answer's tokens above which the thinking ends.
        mean: `arithmetic` as for R1, `geometric` as for Qwen3.
        max_checks: most trials; then the model is left alone.
    """

    words: tuple[str, ...] = ("Wait", "Alternatively")
    trial: str = "\n**Final Answer**\n\\boxed"
    trial_tokens: int = 20
    threshold: float = 0.95
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    max_checks: int = 10
    name: str = "deer"

    def think(self, line: Line) -> None:
        """Try at every turn."""
        checks = 0
        while (thought := line.think(strings=self.words if checks < self.max_checks else (STEP_END,))) is not None:
            if checks == self.max_checks or thought.segment.end != "stop_string" or thought.closing is not None:
                continue
            checks += 1
            at = position_of(line.codec, thought.segment, self.words)
            probe = line.probe(self.trial, at=at, strings=("}",), max_new=self.trial_tokens, sampling=GREEDY)
            if probe is not None and self.confidence(line, probe) > self.threshold:
                line.undo(at)
                line.close(CLOSING)

    def confidence(self, line: Line, probe: Segment) -> float:
        """Mean probability of the answer's tokens: what is in the braces. Greedy, so each is the largest there is."""
        ids, logprobs, _ = sampled(line.codec, probe)
        inside = [
            p for token, p in zip(ids[1:], logprobs[1:], strict=True) if line.codec.decode([token]).strip() != "}"
        ]
        if not inside:
            return 0.0
        if self.mean == "geometric":
            return math.exp(sum(inside) / len(inside))
        return sum(map(math.exp, inside)) / len(inside)
