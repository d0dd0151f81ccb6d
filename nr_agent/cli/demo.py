"""Problems for a first look, chosen so that something is seen and done on the way."""

from __future__ import annotations

from typing import NamedTuple


class Demo(NamedTuple):
    """A problem, and the seed with which it is solved."""

    problem: str
    seed: int


DEMOS = (
    Demo("State the final answer to the following arithmetic problem: 202 + 291 - 308 =", 5),
    Demo("Determine the value of f that satisfies: 240*f = 2640", 11),
)
