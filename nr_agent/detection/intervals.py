"""How far a measured share or rate can be trusted."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate_interval(
    events: Sequence[int], amounts: Sequence[float], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95% interval of a rate, `sum(events) / sum(amounts)`, whole traces drawn with replacement.

    Events of one trace come together, so traces are what is independent. Where there was no event at all, the upper
    end is 3 events: the rule of three.

    Args:
        events: how many happened in each trace.
        amounts: in how much of it, tokens for example.
        draws: bootstrap samples.
        seed: of the draws.
    """
    total = sum(amounts)
    if not total:
        return 0.0, math.inf
    if not any(events):
        return 0.0, 3 / total
    rng, numbers, rates = random.Random(seed), range(len(events)), []
    for _ in range(draws):
        drawn = rng.choices(numbers, k=len(events))
        rates.append(sum(events[i] for i in drawn) / max(1e-9, sum(amounts[i] for i in drawn)))
    rates.sort()
    return rates[int(0.025 * draws)], rates[int(0.975 * draws) - 1]
