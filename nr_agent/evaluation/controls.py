"""The bounds and controls that a detector is compared with, on the same graph and policies.

`OracleDetector` raises events at the true times, by the checkers that label traces: the ceiling. `RandomDetector`
raises them at random times at given rates: what a remedy does by itself. `EntropyDetector` raises a slip where the
model was unsure: what can be had without looking inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from nr_agent.answers import states_answer
from nr_agent.detection.labels import results, slip
from nr_agent.detection.timed import Scores, TimedDetector
from nr_agent.engine.protocol import Engine, Segment
from nr_agent.events import LEVELS, Level


class OracleDetector(TimedDetector):
    """Sees what the checkers see: slips, repeated results before an answer, and a stated answer.

    Args:
        engine: whose sequences it watches: it reads the problem in them.
        levels: which failures it raises.
        shares: share of a level's failures that it raises, drawn by what was thought; all by default.
    """

    def __init__(
        self, engine: Engine, levels: Sequence[Level] = LEVELS, shares: Mapping[Level, float] | None = None
    ) -> None:
        super().__init__("oracle", engine.fingerprint)
        self.engine = engine
        self.levels = tuple(levels)
        self.shares = dict(shares or {})

    def scores(self, seen: Sequence[str], segment: Segment, text: str, *, key: str) -> Scores:
        """1 where the failure is, 0 elsewhere."""
        prompt = self.engine.codec.decode(self.engine.tokens(segment.ref)[: segment.start])
        slipped = slip(text, prompt, seen) is not None
        before = set().union(*(results(step) for step in seen))
        answered = any(states_answer(step) for step in (*seen, text))
        own = results(text)
        found: dict[Level, bool] = {
            "intra_step": slipped,
            "inter_step": not answered and bool(own) and own <= before,
            "instance": states_answer(text),
        }
        return {
            level: float(found[level] and _point(f"{key}/{level}") < self.shares.get(level, 1.0))
            for level in self.levels
        }


class RandomDetector(TimedDetector):
    """Raises each level's event in a share of the steps, wherever they are; what was thought decides in which.

    So a run that is repeated has its events where they were.

    Args:
        fingerprint: of the model that it watches.
        rates: share of the steps, by level.
        seed: another one gives other times.
    """

    def __init__(self, fingerprint: str, rates: Mapping[Level, float], seed: int = 0) -> None:
        super().__init__("random", fingerprint)
        self.rates = dict(rates)
        self.seed = seed

    def scores(self, seen: Sequence[str], segment: Segment, text: str, *, key: str) -> Scores:
        """1 at the drawn times."""
        return {level: float(_point(f"{self.seed}/{key}/{level}") < rate) for level, rate in self.rates.items()}


class EntropyDetector(TimedDetector):
    """Raises a slip where a token was drawn from a distribution flatter than a limit.

    Args:
        fingerprint: of the model that it watches.
        limit: entropy in nats.
    """

    def __init__(self, fingerprint: str, limit: float) -> None:
        super().__init__("entropy", fingerprint)
        self.limit = limit

    def scores(self, seen: Sequence[str], segment: Segment, text: str, *, key: str) -> Scores:
        """1 where the step's flattest distribution is above the limit."""
        return {"intra_step": float(max((e for e in segment.entropies if e is not None), default=0.0) > self.limit)}


def _point(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
