"""What came of a recheck: was the claim changed, or confirmed?"""

from __future__ import annotations

import re
from typing import Literal

from nr_agent.equations import Equation, equations

Outcome = Literal["changed", "confirmed", "unclear"]

_CORRECTS = re.compile(r"\bnot what I had\b|\bI made a (?:mistake|slip)\b|\bthat was wrong\b", re.IGNORECASE)
_CONFIRMS = re.compile(r"\bas I had\b|\bthat (?:was|is) right\b|\bthe same as before\b", re.IGNORECASE)


def recheck_outcome(before: str, after: str) -> Outcome:
    """What a recheck did to the last equation of the step that it looked at.

    Args:
        before: text of the step that was rechecked.
        after: text of the step that the recheck brought about.

    Returns:
        `changed` if the same left side has another value in the end, or the text takes the claim back;
        `confirmed` if it has the same value, or the text says so; else `unclear`.
    """
    claim = _last(equations(before))
    if claim is not None:
        again = _last([equation for equation in equations(after) if equation.left == claim.left])
        if again is not None:
            return "confirmed" if again.claimed == claim.claimed else "changed"
    if _CORRECTS.search(after):
        return "changed"
    return "confirmed" if _CONFIRMS.search(after) else "unclear"


def _last(found: list[Equation]) -> Equation | None:
    return found[-1] if found else None
