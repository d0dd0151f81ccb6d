"""Arithmetic as it is worked out on paper: the long way round that a recheck takes."""

from __future__ import annotations

import random


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
    """The columns of `a op b`, right to left, as `x op y=z` separated by commas."""
    if op == "+" and a >= 0 and b >= 0:
        return _columns_of_sum(a, b)
    if op == "+":  # one is negative: a+b is a difference of the magnitudes
        larger, smaller = sorted((abs(a), abs(b)), reverse=True)
        return _columns_of_difference(larger, smaller) if a * b < 0 else _columns_of_sum(abs(a), abs(b))
    if op == "-" and a >= 0 and b >= 0:
        return _columns_of_difference(max(a, b), min(a, b))
    if op == "-":
        return work_out(a, "+", -b)
    if op == "*":
        return _columns_of_product(abs(a), abs(b))
    return _long_division(abs(a), abs(b))


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
    """Split the second factor by its digits, then add the partial products."""
    if b < 10 and a < 10:
        return f"{b}*{a}={a * b}"
    if b < 10:
        columns, carry = [], 0
        for digit in reversed(str(a)):
            product = int(digit) * b + carry
            columns.append(f"{b}*{digit}+{carry}={product}" if carry else f"{b}*{digit}={product}")
            carry = product // 10
        return ", ".join(columns)
    parts = [int(digit) * 10**place for place, digit in enumerate(reversed(str(b))) if digit != "0"]
    written = [f"{a}*{part}={a * part}" for part in parts]
    total = a * parts[0]
    for part in parts[1:]:
        written.append(f"{total}+{a * part}={total + a * part}")
        total += a * part
    return ", ".join(written)


def _long_division(a: int, b: int) -> str:
    quotient = a // b
    parts = [int(digit) * 10 ** (len(str(quotient)) - 1 - i) for i, digit in enumerate(str(quotient)) if digit != "0"]
    written, rest = [], a
    for part in parts:
        written.append(f"{b}*{part}={b * part}")
        written.append(f"{rest}-{b * part}={rest - b * part}")
        rest -= b * part
    return ", ".join(written)


def _digits(a: int, b: int) -> list[tuple[int, int]]:
    """Both numbers' digits in pairs, from the right, the shorter one filled with zeros."""
    width = max(len(str(a)), len(str(b)))
    return list(zip(map(int, reversed(f"{a:0{width}d}")), map(int, reversed(f"{b:0{width}d}")), strict=True))
