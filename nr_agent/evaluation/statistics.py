"""Honest arithmetic for comparing two arms on the same problems."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from nr_agent.detection.intervals import wilson

__all__ = ["mcnemar", "paired_bootstrap", "wilson"]


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    Args:
        gained: problems that only the second arm got right.
        lost: problems that only the first arm got right.
    """
    n, k = gained + lost, min(gained, lost)
    if not n:
        return 1.0
    tail: float = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95% interval of the mean difference `second - first`, problems drawn with replacement.

    Args:
        first: a number a problem.
        second: the other arm's, in the same order.
        draws: bootstrap samples.
        seed: of the draws.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    if not differences:
        return 0.0, 0.0
    rng, n = random.Random(seed), len(differences)
    means = sorted(sum(rng.choices(differences, k=n)) / n for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]
