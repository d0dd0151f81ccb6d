"""ThinkBrake: the thinking ends with a sentence behind which closing it is almost likeliest (arXiv 2510.00546)."""

from __future__ import annotations

from dataclasses import dataclass

from nr_agent.engine.protocol import Margin
from nr_agent.errors import ConfigurationError
from nr_agent.policies.baselines.protocol import Line
from nr_agent.policies.baselines.texts import SENTENCE_ENDS
from nr_agent.tokens import END_THINK


@dataclass(frozen=True)
class ThinkBrake:
    """Close where the closing token is within a margin of the likeliest, in log-probability over temperature.

    Attributes:
        margin: `tau`; 0.1 for R1 and Qwen3.
    """

    margin: float = 0.1
    name: str = "thinkbrake"

    def think(self, line: Line) -> None:
        """Weigh the closing at every sentence's end.

        Raises:
            ConfigurationError: the model closes its thinking with no token of its own.
        """
        token = line.codec.control(END_THINK)
        if token is None:
            raise ConfigurationError(f"thinkbrake weighs the token {END_THINK}, which this model lacks")
        # The margin is in nats of scaled logits, m = gap / T; greedy has no scale.
        margin = Margin(token, self.margin * (line.sampling.temperature or 1.0))
        thought = line.think(strings=SENTENCE_ENDS)
        while thought is not None:
            thought = line.think(strings=SENTENCE_ENDS, margins=(margin,))
            if thought is not None and thought.segment.end == "margin":
                line.close(f"{END_THINK}\n\n")
