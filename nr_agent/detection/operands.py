"""Whether a sum, a product or an equation is worked at with the numbers that are there: stated, or made on the way.

A number that comes from nowhere, or a term with the other sign, makes a slip of a calculation that holds. What is seen
is where numbers come from, not whether each is used once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from nr_agent.equations import equations

_SUM = re.compile(r"arithmetic (?:problem|expression)\D*: ([\d+\- ]+)=")
_PRODUCT = re.compile(r"multiplication\D*: (\d+) ?[*x\u00d7] ?(\d+)(?! ?[-+*/\d])")
_EQUATION = re.compile(r"(?:[Ss]olve for [a-z]|value of [a-z]\b[^:]*): ([-+*/\d \w]+) = (-?\d+)")
_TERM = re.compile(r"([+-]?) ?(\d+)")
_BINARY = re.compile(r"(-?\d+)([-+*/])(-?\d+)")
_SLOPE = re.compile(r"(-?\d+)\*[a-z]=(-?\d+)")
_NUMBER = re.compile(r"-?\d+")


def operands_known(claims: str, problem: str, before: Sequence[str]) -> bool | None:
    """Whether every calculation in a step works with what is known; None where the problem is of another kind.

    Args:
        claims: the step, without columns.
        problem: the problem's text, or the prompt that holds it.
        before: the claims of the steps before it.
    """
    if match := _SUM.search(problem):
        terms = {int(sign + number) for sign, number in _TERM.findall(match[1])}
        return _of_a_sum(terms, claims, before)
    if match := _EQUATION.search(problem):
        numbers = {abs(int(number)) for number in _NUMBER.findall(match[1] + " " + match[2])} | {1}
        return _of_an_equation(claims, numbers, before)
    if match := _PRODUCT.search(problem):
        return all(
            _of_a_product(step, int(match[1]), int(match[2]), made) for step, made in _calculations(claims, before)
        )
    return None


_Step = tuple[int, str, int]


def _calculations(claims: str, before: Sequence[str]) -> Iterator[tuple[_Step, set[int]]]:
    """Each calculation of a step, with what was made before it."""
    made = {int(one.claimed) for text in before for one in equations(text) if one.claimed.denominator == 1}
    for equation in equations(claims):
        match = _BINARY.fullmatch(equation.left)
        if match is not None:
            yield (int(match[1]), match[2], int(match[3])), made
        if equation.claimed.denominator == 1:
            made.add(int(equation.claimed))


def _of_a_sum(terms: set[int], claims: str, before: Sequence[str]) -> bool:
    """A term, or what came out before, and a term with its own sign; or two partial sums that are not used up yet."""
    loose: Counter[int] = Counter()
    for number, text in enumerate([*before, claims]):
        for (a, op, b), made in _calculations(text, before[:number]):
            if number == len(before):
                joined = op == "+" and loose[a] > 0 and loose[b] > (a == b)
                there = a in terms or a in made
                if not (op in "+-" and there and ((b if op == "+" else -b) in terms or joined)):
                    return False
            loose -= Counter([a, b])
            loose[a + b if op == "+" else a - b] += 1
    return True


def _of_a_product(step: _Step, a: int, b: int, made: set[int]) -> bool:
    """A factor times a part of the other one, or the sum or the difference of two such products."""
    x, op, y = step
    if op == "*":
        return any(
            one == whole and other in _parts(by) for one, other in ((x, y), (y, x)) for whole, by in ((a, b), (b, a))
        )
    return op in "+-" and x in made and y in made


def _parts(number: int) -> set[int]:
    """The number itself, the next round one, what each digit of them stands for, and what is missing between them."""
    missing = -number % 10
    round_up = number + missing
    places = {int(digit) * 10**place for one in (number, round_up) for place, digit in enumerate(reversed(str(one)))}
    return {number, number // 10 * 10, round_up, missing} | places


def _of_an_equation(claims: str, numbers: set[int], before: Sequence[str]) -> bool:
    made = {abs(int(one)) for text in before for one in _NUMBER.findall(text)} | numbers
    if (match := _SLOPE.search(claims)) and not {abs(int(match[1])), abs(int(match[2]))} <= made:
        return False
    return all(
        {abs(a), abs(b)} <= numbers | {abs(one) for one in known} | made
        for (a, _, b), known in _calculations(claims, before)
    )
