"""Problems for a first look: each is answered, and something is seen and done on the way."""

from __future__ import annotations

from typing import NamedTuple


class Demo(NamedTuple):
    """A problem, and the seed with which it is solved."""

    problem: str
    seed: int


DEMOS = (
    Demo("State the final answer to the following arithmetic problem: 837 - 292 - 113 + 568 =", 1),
    Demo("Solve the following multiplication: 57 * 87. Give only the result as your final answer.", 1),
)
