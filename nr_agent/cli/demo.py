"""Problems for a first look, chosen so that something is seen and done on the way."""

from __future__ import annotations

from typing import NamedTuple


class Demo(NamedTuple):
    """A problem, and the seed with which it is solved."""

    problem: str
    seed: int


DEMOS = (
    Demo("State the final answer to the following arithmetic problem: 62 + 20 + 93 + 32 =", 1_800_004),
    Demo('How many times does the letter "s" appear in the text: "she sells sea shells"?', 1_800_000),
)
