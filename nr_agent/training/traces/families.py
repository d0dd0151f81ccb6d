"""One teacher a family: how a problem is taken apart, and in which order it is thought about."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable
from typing import NamedTuple

from nr_agent.training.traces.arithmetic import (
    apply,
    by_doubling,
    compared,
    compared_by_digits,
    named,
    near_miss,
    places_of,
)
from nr_agent.training.traces.scratchpad import Check, Habits, Scratchpad, Trace

Teacher = Callable[[str, Scratchpad], Trace]

_NUMBER = re.compile(r"-?\d+")
_DEAD_ENDS = (0.30, 0.22, 0.16, 0.12, 0.09, 0.06, 0.05)
"""Weights of 0, 1, 2, ... failed attempts before a search succeeds."""


def teach(family: str, question: str, rng: random.Random, habits: Habits | None = None) -> Trace:
    """Think a problem through as the family's teacher does."""
    return TEACHERS[family](question, Scratchpad(rng, habits or Habits()))


def chain_sum(question: str, pad: Scratchpad) -> Trace:
    """Left to right, one operation a step; a check takes the terms in another order."""
    tokens = re.findall(r"\d+|[+-]", question.partition(":")[2])
    terms = [int(sign + term) for sign, term in zip(["+", *tokens[1::2]], tokens[::2], strict=True)]

    def add(ordered: list[int]) -> str:
        total = ordered[0]
        for term in ordered[1:]:
            total = pad.calculate(total, "+" if term >= 0 else "-", abs(term))
        return str(total)

    def reorder() -> str:
        start = pad.rng.randrange(1, len(terms))
        rest = terms[:start] + terms[start + 1 :]
        return add([terms[start], *pad.rng.sample(rest, len(rest))])

    return pad.solve(lambda: add(terms), [Check(reorder), Check(lambda: add(terms), worked=True)])


def products(question: str, pad: Scratchpad) -> Trace:
    """The second factor place by place, each added to what there is; a check takes another way to the product."""
    a, b = (int(number) for number in _NUMBER.findall(question)[:2])

    def work(a: int = a, b: int = b) -> str:
        total = None
        for part in places_of(b):
            product = pad.calculate(a, "*", part)
            total = product if total is None else pad.calculate(total, "+", product)
        return str(total)

    def round_up() -> str:
        missing = -b % 10
        if not missing:
            return work(b, a)
        return str(pad.calculate(int(work(a, b + missing)), "-", pad.calculate(a, "*", missing)))

    def columns() -> str:
        return str(pad.calculate(a, "*", b))

    return pad.solve(work, [Check(lambda: work(b, a)), Check(round_up), Check(columns, worked=True)])


def simple_equations(question: str, pad: Scratchpad) -> Trace:
    """Bring the constant over, divide; a check puts the value back in."""
    name, slope, constant, right, constant_first = _parse_equation(question)

    def work() -> str:
        value = right
        if constant_first:  # c - a*x = r
            value = pad.calculate(value, "-", constant)
        elif constant:
            value = pad.calculate(value, "-" if constant > 0 else "+", abs(constant))
        pad.say(f"{slope}*{name}={value}")
        if slope == 1:
            return str(value)
        return str(pad.calculate(value, "/", slope))

    def verify() -> str:
        value = (right - constant) // slope
        product = pad.calculate(slope, "*", value)
        if constant_first:
            pad.calculate(constant, "+" if product >= 0 else "-", abs(product))
        elif constant:
            pad.calculate(product, "+" if constant > 0 else "-", abs(constant))
        return str(value)

    return pad.solve(work, [Check(verify), Check(work, worked=True), Check(verify, worked=True)])


def gcd(question: str, pad: Scratchpad) -> Trace:
    """Euclid: take the multiple away, go on with the rest until there is none; a check multiplies up again.

    Each round says first which two numbers are left, the larger one first: they are copied before anything is done
    with them. Before the first round it is said which one is the larger one.
    """
    first, second = parse_gcd(question)

    def take(a: int, b: int, left: str, at_length: str) -> None:
        times = a // b
        pad.claim(
            before=f"{pad.lead()}{left}{b}*",
            value=f"{times}={times * b}",
            wrong=lambda: _wrong_multiple(b, times, pad.rng),
            redo=by_doubling(a, b),
            restate=f"So {b}*",
            careful=at_length,
        )

    def work() -> str:
        pad.misjudge(first, second)
        a, b = max(first, second), min(first, second)
        while True:
            left, at_length = round_of(a, b, (first, second)), round_at_length(a, b, (first, second))
            if a // b > 1:
                take(a, b, left, at_length)
                rest = pad.calculate(a, "-", a // b * b)
            else:
                rest = pad.calculate(a, "-", b, left, at_length)
            if not rest:
                return str(b)
            a, b = b, rest

    def multiply() -> str:
        common = math.gcd(first, second)
        for number in (first, second):
            if number != common:
                pad.calculate(common, "*", number // common)
        return str(common)

    return pad.solve(work, [Check(multiply), Check(work, worked=True)], most=1)


def round_of(larger: int, smaller: int, asked: tuple[int, int]) -> str:
    """Which two numbers a round of Euclid's begins with; where they are those asked about, they are compared first."""
    left = f"{larger}, {smaller}: "
    return f"{compared(*asked)}: {left}" if {larger, smaller} == set(asked) else left


def round_at_length(larger: int, smaller: int, asked: tuple[int, int], *, turned: bool = False) -> str:
    """The same with nothing taken at a glance: neither which one is larger, nor how often the other one fits.

    The two are compared as they stand there: those asked about in their order, later what was taken away before what
    is left. That is the smaller one where too little was taken away (`turned`).
    """
    order = (smaller, larger) if turned else (larger, smaller)
    if {larger, smaller} == set(asked):
        order = asked
    decided = f"{compared_by_digits(*order)}, {compared(*order)}: "
    return f"{decided}{larger}, {smaller}: {by_doubling(larger, smaller)}"


class Attempt(NamedTuple):
    """`(a op b) = inner`, then `x op y = result`, where `x` or `y` is the inner value."""

    first: tuple[int, str, int]
    second: tuple[int, str, int]
    expression: str

    @property
    def result(self) -> int:
        """Where the attempt ends."""
        return apply(*self.second)


def countdown(question: str, pad: Scratchpad) -> Trace:
    """Attempts, the promising ones sooner, until one reaches the target."""
    numbers, target = parse_countdown(question)
    attempts = list(countdown_attempts(numbers))
    reached = [attempt for attempt in attempts if attempt.result == target]
    missed = [attempt for attempt in attempts if attempt.result != target]
    solution = pad.rng.choice(reached)

    def write(attempt: Attempt, lead: str, after: str) -> None:
        (a, op, b), (x, op2, y) = attempt.first, attempt.second
        inner = apply(a, op, b)
        pad.claim(
            before=f"{lead}{a}{op}{b}=",
            value=f"{inner}, {x}{op2}{y}={attempt.result}",
            wrong=lambda: _wrong_attempt(attempt, target, pad.rng),
            redo=f"{named(a, op, b)}, {named(x, op2, y)}",
            restate=f"So {a}{op}{b}=",
            verdict=after,
        )

    def work() -> str:
        dead_ends = pad.rng.choices(range(len(_DEAD_ENDS)), _DEAD_ENDS)[0]
        weights = [math.exp(-abs(attempt.result - target) / 15) + 1e-3 for attempt in missed]
        for attempt in _sample(missed, weights, dead_ends, pad.rng):
            write(attempt, "Try ", f". Not {target}.")
        write(solution, "Try ", f". That is {target}.")
        return solution.expression

    def verify() -> str:
        write(solution, "", f". That is {target}.")
        return solution.expression

    return pad.solve(work, [Check(verify, worked=True), Check(verify)])


def letter_counting(question: str, pad: Scratchpad) -> Trace:
    """Spell each word, count the letter in it, add up; a check looks at every letter, from either end."""
    letter, text = re.findall(r'"([^"]*)"', question)
    words = text.split()

    def work(words: list[str] = words) -> str:
        total, whole = 0, sum(word.lower().count(letter) for word in words)
        for word in words:
            spelled = word.lower()
            count = spelled.count(letter)
            pad.claim(
                before=f"{word}: {' '.join(spelled)} has ",
                value=str(count),
                wrong=lambda count=count: str(count + 1 if not count else count - 1),  # type: ignore[misc]
                redo=look_through(spelled, letter),
                restate=f"So {word} has ",
                after=f", {total}+{count}={total + count}" if count else "",
            )
            total += count
            if total == whole:
                pad.know()
        return str(total)

    return pad.solve(work, [Check(work, worked=True), Check(lambda: work(words[::-1]), worked=True)])


def look_through(word: str, letter: str) -> str:
    """A word's letters one by one, with a running count of the one that is asked for."""
    count, looks = 0, []
    for char in word:
        count += char == letter
        looks.append(f"{char} yes {count}" if char == letter else f"{char} no")
    return f"{letter} in {', '.join(looks)}"


def parse_gcd(question: str) -> tuple[int, int]:
    """The two numbers, in the order in which they are given."""
    first, second = (int(number) for number in _NUMBER.findall(question)[:2])
    return first, second


def parse_countdown(question: str) -> tuple[list[int], int]:
    """The numbers to use, and the target."""
    head = question.partition("Final answer format")[0]
    listed = re.search(r"numbers:? ((?:\d+(?:, )?)+)", head)
    if listed is None:
        raise ValueError(f"not a countdown problem: {head!r}")
    numbers = [int(number) for number in _NUMBER.findall(listed.group(1))]
    rest = _NUMBER.findall(head[: listed.start()] + head[listed.end() :])
    return numbers, int(rest[0])


def countdown_attempts(numbers: list[int]) -> list[Attempt]:
    """Every way to use three numbers with whole, non-negative results between."""
    attempts = []
    for i, j in itertools.permutations(range(len(numbers)), 2):
        (k,) = set(range(len(numbers))) - {i, j}
        a, b, c = numbers[i], numbers[j], numbers[k]
        for op in "+-*/":
            if not _allowed(a, op, b) or (op in "+*" and i > j):
                continue
            inner = apply(a, op, b)
            for op2 in "+-*/":
                if _allowed(inner, op2, c):
                    attempts.append(Attempt((a, op, b), (inner, op2, c), f"({a}{op}{b}){op2}{c}"))
                if op2 in "-/" and _allowed(c, op2, inner):
                    attempts.append(Attempt((a, op, b), (c, op2, inner), f"{c}{op2}({a}{op}{b})"))
    return attempts


def _wrong_attempt(attempt: Attempt, target: int, rng: random.Random) -> str:
    """How an attempt's values are written with a slip: the first one wrong, or the second one hoped for."""
    (a, op, b), (x, op2, y) = attempt.first, attempt.second
    inner = apply(a, op, b)
    if rng.random() < 0.5:
        return f"{near_miss(inner, rng)}, {x}{op2}{y}={attempt.result}"
    off = target if attempt.result != target else target + rng.choice((-2, -1, 1, 2))
    return f"{inner}, {x}{op2}{y}={off}"


def _wrong_multiple(b: int, times: int, rng: random.Random) -> str:
    """A multiple that is too large, or comes to something else."""
    if rng.random() < 0.5:
        return f"{times}={near_miss(times * b, rng)}"
    return f"{times + 1}={(times + 1) * b}"


def _allowed(a: int, op: str, b: int) -> bool:
    if op == "-":
        return a >= b
    return op != "/" or (b != 0 and a % b == 0)


def _sample(items: list[Attempt], weights: list[float], k: int, rng: random.Random) -> list[Attempt]:
    """`k` different items, heavier ones sooner (Efraimidis and Spirakis 2006)."""
    keys = [rng.random() ** (1 / weight) for weight in weights]
    order = sorted(range(len(items)), key=keys.__getitem__, reverse=True)
    return [items[i] for i in order[:k]]


def _parse_equation(question: str) -> tuple[str, int, int, int, bool]:
    """`slope*x + constant = right`; the flag tells that the constant comes first."""
    equation = question.rsplit(":", 1)[1].replace(" ", "")
    left, right = equation.split("=")
    match = re.search(r"([+-]?)(\d*)\*?([a-z])(?![a-z])", left)
    if match is None:
        raise ValueError(f"not a linear equation: {equation!r}")
    slope = int(match.group(2) or 1) * (-1 if match.group(1) == "-" else 1)
    rest = left[: match.start()] + left[match.end() :]
    constant = int(rest) if rest else 0
    return match.group(3), slope, constant, int(right), match.start() > 0


TEACHERS: dict[str, Teacher] = {
    "chain_sum": chain_sum,
    "products": products,
    "simple_equations": simple_equations,
    "gcd": gcd,
    "countdown": countdown,
    "letter_counting": letter_counting,
}
