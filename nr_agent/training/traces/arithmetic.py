"""Arithmetic as it is worked out on paper: the long way round that a recheck takes."""

from __future__ import annotations

import random

_AT_A_GLANCE = 100
"""From here on, differences are taken column by column in a long division."""


def apply(a: int, op: str, b: int) -> int:
    """`a op b` for `+ - * /`; a division must come out even."""
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    quotient, rest = divmod(a, b)
    if rest:
        raise ValueError(f"{a}/{b} does not come out even")
    return quotient


def work_out(a: int, op: str, b: int) -> str:
    """The columns of `a op b`, right to left, as `x op y=z` separated by commas.

    Where the columns are those of another calculation than the one that is asked for (magnitudes of negative
    numbers, the larger number first, a factor without its zeros), that one is named first.
    """
    if op in "+-":
        first, second = a, b if op == "+" else -b
        if first * second >= 0:
            x, y = abs(first), abs(second)
            return _named(f"{x}+{y}", f"{a}{op}{b}", _columns_of_sum(x, y))
        x, y = sorted((abs(first), abs(second)), reverse=True)
        return _named(f"{x}-{y}", f"{a}{op}{b}", _columns_of_difference(x, y))
    if op == "*":
        x, y = sorted((abs(a), abs(b)), reverse=True)
        return _named(f"{x}*{y}", f"{a}{op}{b}", _columns_of_product(x, y))
    x, y = abs(a), abs(b)
    return _named(f"{x}/{y}", f"{a}{op}{b}", _long_division(x, y))


def named(a: int, op: str, b: int) -> str:
    """The columns of `a op b` behind its name: what is worked out is decided before its digits are."""
    return f"{a}{op}{b}: {work_out(a, op, b)}"


def by_doubling(a: int, b: int) -> str:
    """How often `b` goes into `a`, and which multiple that is: see `_long_division`."""
    times, rest = divmod(a, b)
    multiple = [f"{a}-{rest}={a - rest}"] if rest and times > 1 else []
    return f"{a}/{b}: {', '.join([_long_division(a, b), *multiple])}"


def places_of(number: int) -> list[int]:
    """What the digits of a number stand for, from the left, without zeros: 305 is 300 and 5."""
    digits = str(number)
    return [int(digit) * 10 ** (len(digits) - place) for place, digit in enumerate(digits, 1) if digit != "0"]


def near_miss(value: int, rng: random.Random) -> int:
    """A wrong value as a slip makes it: one digit off by a little, or a place off."""
    places = len(str(abs(value)))
    while True:
        off = rng.choice((1, 1, 1, 2, 3)) * int(10 ** rng.randrange(places)) * rng.choice((-1, 1))
        if value + off != value:
            return value + off


def _columns_of_sum(a: int, b: int) -> str:
    columns, carry = [], 0
    for x, y in _digits(a, b):
        total = x + y + carry
        columns.append(f"{x}+{y}+{carry}={total}" if carry else f"{x}+{y}={total}")
        carry = total // 10
    return ", ".join(columns)


def _columns_of_difference(a: int, b: int) -> str:
    columns, borrow = [], 0
    for x, y in _digits(a, b):
        top = x - borrow
        borrow = 1 if top < y else 0
        columns.append(f"{top + 10 * borrow}-{y}={top + 10 * borrow - y}")
    return ", ".join(columns)


def _columns_of_product(a: int, b: int) -> str:
    """Split the second factor by its digits, work each partial product out, then add them up."""
    written, total = [], 0
    for place, digit in enumerate(map(int, reversed(str(b)))):
        if not digit:
            continue
        zeros = 10**place
        part = a * digit * zeros
        bare = int(str(a).rstrip("0") or "0")
        columns, carry = [], 0
        for other in map(int, reversed(str(bare))):
            product = other * digit + carry
            columns.append(f"{digit}*{other}+{carry}={product}" if carry else f"{digit}*{other}={product}")
            carry = product // 10
        written += columns
        if len(columns) > 1 or bare != a or zeros > 1:
            written.append(f"{a}*{digit * zeros}={part}")
        if total:
            written += [_columns_of_sum(total, part), f"{total}+{part}={total + part}"]
        total += part
    return ", ".join(written) or f"{b}*{a}=0"


def _long_division(a: int, b: int) -> str:
    """Take doubles of the divisor away while they fit, the largest one first: no digit has to be guessed.

    All doubles that can fit stand there before the first one is taken away, and which one comes next is said (it is
    added to those that were taken) before it is: what is decided and what is copied are apart.
    """
    doubles = [b]
    while 2 * doubles[-1] <= a:
        doubles.append(2 * doubles[-1])
    written = [f"{2**power}*{b}={double}" for power, double in enumerate(doubles) if power]
    rest, taken = a, 0
    for power in reversed(range(len(doubles))):
        if doubles[power] > rest:
            continue
        if taken:
            written.append(f"{taken}+{2**power}={taken + 2**power}")
        elif not power:
            written.append(f"1*{b}={b}")
        taken += 2**power
        difference = f"{rest}-{doubles[power]}"
        if rest >= _AT_A_GLANCE and rest != doubles[power]:
            written.append(f"{difference}: {_columns_of_difference(rest, doubles[power])}")
        rest -= doubles[power]
        written.append(f"{difference}={rest}")
    return ", ".join(written)


def _named(name: str, asked: str, columns: str) -> str:
    return columns if name == asked else f"{name}: {columns}"


def _digits(a: int, b: int) -> list[tuple[int, int]]:
    """Both numbers' digits in pairs, from the right, the shorter one filled with zeros."""
    width = max(len(str(a)), len(str(b)))
    return list(zip(map(int, reversed(f"{a:0{width}d}")), map(int, reversed(f"{b:0{width}d}")), strict=True))
