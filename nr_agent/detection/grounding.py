"""Whether what a step calculates with was there before: in the problem, or in an earlier step.

A calculation can be right and still be a slip, because a number in it was copied wrongly, used twice, or comes from
nowhere. That is seen without a judge where the problem says what there is to work with: the numbers and the target of
a search, the words that are counted in, the two numbers of a common divisor, the terms of a sum, the factors of a
product, the numbers of an equation. Of other problems nothing is said.

Limit: a number that is known, in the wrong place, is not seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from nr_agent.detection.euclid import Pair, goes_on, standing
from nr_agent.detection.operands import operands_known
from nr_agent.equations import equations

SECOND_LOOK = ("let me redo", "let me double-check")
"""How a step begins, after a word or two, that goes over the one before it."""

_NUMBER = re.compile(r"\d+")
_MULTIPLE = re.compile(r"(\d+) is (\d+)\*(\d+)(?!\s*[*\d])")
_ATTEMPT = re.compile(r"(\d+)[-+*/](\d+)=(-?\d+), (-?\d+)[-+*/](-?\d+)=(-?\d+)")
_TARGET = re.compile(r"(?:Not|That is) (-?\d+)\.")
_GIVEN = re.compile(r"numbers:? ((?:\d+(?:, )?)+)")
_COUNTED = re.compile(r"(?:^|[ \n>])(?:So (\S+)|(\S+): \S(?: \S)*) has (\d+)")
_COUNTS = re.compile(r'letter "\w" appear')
_DIVISOR = re.compile(r"greatest common divisor|highest common factor|\bgcd\b", re.IGNORECASE)
_TOO_MUCH = re.compile(r"\d+-\d+")
_COLUMNS = re.compile(r"=|\d[<>]\d| (?:yes \d+|no)[,.]")
_ADDED = re.compile(r"(\d+)\+(\d+)=\d+")
_SIGNED = re.compile(r"-?\d+")


def grounded(text: str, problem: str, before: Sequence[str]) -> bool:
    """Whether every operand of a step's claims was there before.

    Args:
        text: the step.
        problem: the problem's text, or the prompt that holds it.
        before: the steps before it, in order.
    """
    claims = claims_of(text)
    if _DIVISOR.search(problem):
        return _operands_grounded(text, claims, problem, before)
    if _COUNTS.search(problem):
        counted = _COUNTED.search(claims)
        return counted is None or _count_grounded(counted, _ADDED.search(claims), problem, before)
    given, attempt = _GIVEN.search(problem), _ATTEMPT.search(claims)
    if given is not None:
        return attempt is None or _attempt_grounded(attempt, _TARGET.search(text), problem, given)
    return operands_known(claims, problem, [claims_of(step) for step in before]) is not False


def is_second_look(text: str) -> bool:
    """Whether a step goes over the one before it."""
    return any(phrase in text.lower() for phrase in SECOND_LOOK)


def numbers_left(problem: str, before: Sequence[str]) -> Pair | None:
    """The two numbers that a common divisor is looked for of, behind some steps; None where that is not known."""
    return standing(problem, _said(before)) if _DIVISOR.search(problem) else None


def claims_of(text: str) -> str:
    """A step without the columns in which it works its claim out."""
    worked, so, claim = text.rpartition("So ")
    return so + claim if _COLUMNS.search(worked) else text


def counted_word(text: str) -> str | None:
    """The word whose letters a step counts."""
    counted = _COUNTED.search(claims_of(text))
    return None if counted is None else counted[1] or counted[2]


def _said(steps: Sequence[str]) -> list[tuple[str, bool]]:
    return [(claims_of(step), is_second_look(step)) for step in steps]


def _numbers(texts: Iterable[str]) -> set[str]:
    return {str(int(number)) for text in texts for number in _NUMBER.findall(text)}


def _operands_grounded(text: str, claims: str, problem: str, before: Sequence[str]) -> bool:
    """Both operands of a sum, a difference or a quotient are known; of a product one, or what it comes to.

    Where the steps are those of Euclid's algorithm, the step is the next one.

    No more is taken away than there is: a multiple that is too large leads below zero.
    """
    if is_second_look(text):
        if before and _goes_over(claims, before):
            return True
    elif goes_on(claims, problem, _said(before)) is False:
        return False
    known = _numbers([problem]) | _numbers(claims_of(step) for step in before)
    if any(match[1] not in known or not {match[2], match[3]} & known for match in _MULTIPLE.finditer(claims)):
        return False
    for equation in equations(claims):
        operands = _NUMBER.findall(equation.left)
        if len(operands) == 2:
            if _TOO_MUCH.fullmatch(equation.left) and int(operands[0]) < int(operands[1]):
                return False
            there = {str(int(operand)) for operand in operands} & known
            product = "*" in equation.left
            if not there or not (product or len({*map(int, operands)}) == len(there)):
                return product and str(abs(equation.claimed)) in known
        known |= {str(abs(equation.claimed))}
    return True


def _goes_over(claims: str, before: Sequence[str]) -> bool:
    """Whether what is looked at again is what the step before it, or the one that this one goes over, says."""
    looked_at = list(before)
    while looked_at and is_second_look(looked_at[-1]):
        looked_at.pop()
    said = "".join(before[max(len(looked_at) - 1, 0) :]).replace(" ", "")
    found = equations(claims)
    if match := _MULTIPLE.search(claims):
        return match[1] in _NUMBER.findall(said)
    return not found or found[0].left in said or _turned(found[0].left) in said


def _turned(left: str) -> str:
    match = re.fullmatch(r"(-?\d+)([+*])(-?\d+)", left)
    return f"{match[3]}{match[2]}{match[1]}" if match else left


def _attempt_grounded(attempt: re.Match[str], target: re.Match[str] | None, problem: str, given: re.Match[str]) -> bool:
    a, b, inner, x, y, _ = attempt.groups()
    numbers = Counter(_NUMBER.findall(given[1]))
    inner = inner if inner in (x, y) else inner.lstrip("-")  # 18-2 after 5-7=-2 adds what came out
    if inner not in (x, y):
        return False
    other = y if x == inner else x
    if Counter([a, b, other]) != numbers and Counter([a, b, x if other == y else y]) != numbers:
        return False
    head = problem.partition("Final answer format")[0]
    asked = _SIGNED.findall(head[: given.start()].rpartition("\n")[2] + head[given.end() :].partition("\n")[0])
    return target is None or target[1] in asked


def _count_grounded(counted: re.Match[str], added: re.Match[str] | None, problem: str, before: Sequence[str]) -> bool:
    word = counted[1] or counted[2]
    if word.lower() not in problem.lower():
        return False
    return added is None or (added[2] == counted[3] and int(added[1]) in _totals(before, word))


def _totals(before: Sequence[str], word: str) -> set[int]:
    """What may have been counted before the word: without the last step, too, where that counted the word itself."""
    total = earlier = 0
    last = None
    for step in before:
        claims = claims_of(step)
        if "answer is" in step:
            total = earlier = 0
        counted, added = _COUNTED.search(claims), _ADDED.search(claims)
        if counted:
            last = counted[1] or counted[2]
        if counted and added:
            earlier, total = int(added[1]), int(added[1]) + int(added[2])
    return {total, earlier} if last == word else {total}
