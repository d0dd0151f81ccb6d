"""What a line of thought is kept from writing again: the steps that stand there, up to their last choice."""

from __future__ import annotations

import math
from collections.abc import Sequence

SURE = math.log(0.9)
"""Log-probability from which on a model had no other token in mind."""

SHORTEST = 3
"""Ids of a piece: fewer say too little of what was written."""

LONGEST = 32
"""How many steps are looked back on."""


def pieces(steps: Sequence[tuple[Sequence[int], Sequence[float | None]]]) -> list[list[int]]:
    """For each step its ids up to the last one that the model was not sure of: written so far, it would come out again.

    Only the token at which there was something to choose may be forbidden: what follows from it, such as the result of
    a calculation, would come out wrong. The first id is left out, it is another one behind the words of a remedy.

    Args:
        steps: the ids of each, and their log-probabilities, None where an id was inserted.

    Returns:
        No piece twice; none of steps in which there was nothing to choose.
    """
    found: dict[tuple[int, ...], None] = {}
    for ids, logprobs in steps[-LONGEST:]:
        chosen = [at for at, logprob in enumerate(logprobs) if logprob is not None and logprob < SURE]
        if chosen and chosen[-1] >= SHORTEST:
            found[tuple(ids[1 : chosen[-1] + 1])] = None
    return [list(piece) for piece in found]
