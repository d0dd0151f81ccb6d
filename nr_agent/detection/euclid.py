"""Whether a step towards a common divisor goes on with the two numbers that are left.

Every equation of such a step can hold, and every number in it be known, and still it leads away from the answer: the
multiple is one that does not go into what is left, or the numbers are those of another round. That is seen here, where
each step is a multiple (`46*8=368`), what is left without it (`384-368=16`), or a number that divides the other
(`46 is 23*2`), perhaps behind the two numbers that are left (`384, 46: 46*8=368`), and these behind how they compare
(`384>46: 384, 46: 46*8=368`). Of steps that are written otherwise nothing is said, nor of those behind an answer. A
multiple that is not the largest one takes longer, and is no mistake.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from nr_agent.answers import states_answer

_CLAIM = re.compile(
    r"(?:(?:So|First|Then|Next|Now) )?(?:(\d+)[<>=](\d+): )?(?:(\d+), (\d+): )?"
    r"(?:(\d+)([-*])(\d+)=(-?\d+)|(\d+)( is )(\d+)\*(\d+))(?:, (?:as|not what) I had)?\.?"
)
_COMPARED = re.compile(r"(?:So )?\d+[<>=]\d+(?:, (?:as|not what) I had)?\.?")
_NUMBER = re.compile(r"\d+")


class Pair(NamedTuple):
    """Where the work stands.

    Attributes:
        larger: of the two numbers that are left.
        smaller: the one whose multiples are taken away.
        multiple: the one that was worked out for that; None before it is.
        turned: whether what was left is larger than what was taken away, so that more of it should have been.
    """

    larger: int
    smaller: int
    multiple: int | None = None
    turned: bool = False


class _Claim(NamedTuple):
    left: int
    op: str
    right: int
    result: int


class _Step(NamedTuple):
    """What a step claims, the two numbers that are left by what it says itself, and those that it compares."""

    claim: _Claim
    stated: Pair | None
    compared: set[int] | None


def goes_on(claims: str, problem: str, before: Sequence[tuple[str, bool]]) -> bool | None:
    """Whether a step is the next one; None where that is not known, or where it was written before.

    Args:
        claims: the step, without columns; not one that goes over another.
        problem: the problem's text, or the prompt that holds it.
        before: the claims of each step before it, and whether it goes over the one before it.
    """
    step, pair = _read(claims), standing(problem, before)
    if step is not None and step.stated is not None and not step.stated.smaller:
        return False  # nothing was left: the one before it is the divisor
    if step is None or pair is None or step.claim in _claimed(before):
        return None
    left = pair[:2]
    copied = (step.stated is None or step.stated[:2] == left) and (step.compared is None or step.compared == set(left))
    return copied and _play(pair, step.claim)[0]


def standing(problem: str, before: Sequence[tuple[str, bool]]) -> Pair | None:
    """Where the work stands behind some steps; None where they do not tell, or have come to an answer.

    Args:
        problem: see `goes_on`.
        before: see `goes_on`.
    """
    numbers = [int(number) for number in _NUMBER.findall(problem.partition("numbers:")[2])[:2]]
    if len(numbers) < 2 or any(states_answer(claims) for claims, _ in before):
        return None
    pair: Pair | None = Pair(max(numbers), min(numbers))
    earlier = pair
    seen: set[_Claim] = set()
    for claims, second_look in before:
        if _COMPARED.fullmatch(claims.strip()):  # nothing is taken away by that; what it goes over counts no more
            pair = earlier if second_look else pair
            continue
        step = _read(claims)
        if step is None:
            return None
        claim = step.claim
        if claim in seen and not second_look:  # that is going in circles
            continue
        seen.add(claim)
        if second_look:  # what it goes over counts no more, unless it is what comes out again
            held, after = (False, None) if earlier is None else _play(earlier, claim)
            pair = after if held else earlier
        else:
            if step.stated and (pair is None or set(step.stated[:2]) != set(pair[:2])):
                pair = step.stated  # by what it says itself it goes on from there
            earlier = pair
            pair = _play(pair, claim)[1] if pair else _told(claim)
    return pair


def _play(pair: Pair, claim: _Claim) -> tuple[bool, Pair | None]:
    """Whether a step goes on from there, and where the work stands behind it, be it wrong."""
    a, b = pair[:2]
    left, op, right, result = claim
    if op == "*":
        if b not in (left, right):
            return False, None
        times = right if left == b else left
        return times * b <= a, pair._replace(multiple=result)
    if op == "-":
        held = left == a and right in (pair.multiple or b, b)
        left_over = Pair(max(b, result), min(b, result), turned=result > b)
        return held, left_over if held and result > 0 else None
    return (left, result) == (a, b), pair if left == a and b in (right, result) else _told(claim)


def _told(claim: _Claim) -> Pair | None:
    """Where the work stands by what a step says, whatever was before."""
    return Pair(claim.left, claim.result) if claim.op == " is " and claim.result else None


def _claimed(before: Sequence[tuple[str, bool]]) -> set[_Claim]:
    return {step.claim for said, _ in before if (step := _read(said)) is not None}


def _read(claims: str) -> _Step | None:
    match = _CLAIM.fullmatch(claims.strip())
    if match is None:
        return None
    one, other, larger, smaller, *said = match.groups()
    left, op, right, result = (part for part in said if part is not None)
    stated = None if larger is None else Pair(int(larger), int(smaller))
    compared = None if one is None else {int(one), int(other)}
    return _Step(_Claim(int(left), op, int(right), int(result)), stated, compared)
