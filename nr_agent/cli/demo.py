"""Problems for a first look, chosen so that something is seen and done on the way."""

from __future__ import annotations

from typing import NamedTuple


class Demo(NamedTuple):
    """A problem, and the seed with which it is solved."""

    problem: str
    seed: int


DEMOS = (
    Demo("State the final answer to the following arithmetic problem: 48 + 78 + 46 + 59 - 33 =", 1_800_007),
    Demo("Solve the following multiplication: 46 * 72. Give only the result as your final answer.", 1_800_001),
)
