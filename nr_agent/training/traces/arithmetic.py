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
    numbers, the larger number first, a factor without its zeros), that one is named first. Which number is the
    larger one is seen from the digits before it is named; where there is none, nothing is left.
    """
    if op in "+-":
        first, second = a, b if op == "+" else -b
        if first * second >= 0:
            x, y = abs(first), abs(second)
            return _named(f"{x}+{y}", f"{a}{op}{b}", _columns_of_sum(x, y))
        decided = compared_by_digits(abs(first), abs(second))
        x, y = sorted((abs(first), abs(second)), reverse=True)
        if x == y:
            return decided
        return f"{decided}, {_named(f'{x}-{y}', f'{a}{op}{b}', _columns_of_difference(x, y))}"
    if op == "*":
        x, y = abs(a), abs(b)
        if len(places_of(x)) < len(places_of(y)):  # it is split by the factor with fewer digits to split
            x, y = y, x
        return _named(f"{x}*{y}", f"{a}{op}{b}", _columns_of_product(x, y))
    x, y = abs(a), abs(b)
    return _named(f"{x}/{y}", f"{a}{op}{b}", _long_division(x, y))


def named(a: int, op: str, b: int) -> str:
    """The columns of `a op b` behind its name: what is worked out is decided before its digits are."""
    return f"{a}{op}{b}: {work_out(a, op, b)}"


def compared(a: int, b: int) -> str:
    """Which of two numbers is the larger one: `a<b`, `a>b` or `a=b`."""
    return f"{a}{'<' if a < b else '>' if a > b else '='}{b}"


def compared_by_digits(a: int, b: int) -> str:
    """The digits of two numbers from the left, compared up to the first ones that decide: `4=4, 1<7`."""
    pairs = _digits(a, b)[::-1]
    decides = next((place for place, (x, y) in enumerate(pairs, 1) if x != y), len(pairs))
    return ", ".join(compared(x, y) for x, y in pairs[:decides])


def by_doubling(a: int, b: int) -> str:
    """How often `b` goes into `a`, and which multiple that is: see `_long_division`.

    Where that is a double, it stands there already; else it is what is left without the rest.
    """
    times, rest = divmod(a, b)
    multiple = _taken_away(a, rest) if rest and times & (times - 1) else []
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
    """Ten and more above is a borrow; the next column says that it owes one."""
    columns, owed = [], 0
    for x, y in _digits(a, b):
        top = x + 10 if x < y + owed else x
        columns.append(f"{top}-{y}-1={top - y - 1}" if owed else f"{top}-{y}={top - y}")
        owed = int(top > 9)
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
            product = digit * other
            columns.append(f"{digit}*{other}={product}")
            if carry:
                columns.append(f"{product}+{carry}={product + carry}")
            carry = (product + carry) // 10
        written += columns
        if len(columns) > 1 or bare != a or zeros > 1:
            written.append(f"{a}*{digit * zeros}={part}")
        if total:
            written += [f"{total}+{part}: {_columns_of_sum(total, part)}", f"{total}+{part}={total + part}"]
        total += part
    return ", ".join(written) or f"{b}*{a}=0"


def _long_division(a: int, b: int) -> str:
    """Take doubles of the divisor away while they fit, the largest one first: no digit has to be guessed.

    All doubles that can fit stand there before the first one is taken away, up to the one that is seen to be too large.
    Each smaller one is then compared with what is left, and where it is taken that is said (it is added to those that
    were) before it is: what is decided and what is copied are apart.
    """
    doubles = [b]
    while doubles[-1] <= a:
        doubles.append(2 * doubles[-1])
    too_large = len(doubles) - 1
    written = [f"{2**power}*{b}={doubles[power]}" for power in range(1, too_large)]
    written.append(f"{2**too_large}*{b}={compared(doubles[-1], a)}")
    rest, taken = a, 0
    for power in reversed(range(too_large)):
        double = doubles[power]
        if not rest:
            break
        if taken:
            written.append(compared(double, rest))
        elif not power:
            written.append(f"1*{b}={b}")
        if double > rest:
            continue
        if taken:
            written.append(f"{taken}+{2**power}={taken + 2**power}")
        taken += 2**power
        written += _taken_away(rest, double)
        rest -= double
    return ", ".join(written)


def _taken_away(a: int, b: int) -> list[str]:
    """The smaller number taken away from the larger one: in columns first where that is not seen at a glance."""
    columns = [f"{a}-{b}: {_columns_of_difference(a, b)}"] if a >= _AT_A_GLANCE and a != b else []
    return [*columns, f"{a}-{b}={a - b}"]


def _named(name: str, asked: str, columns: str) -> str:
    return columns if name == asked else f"{name}: {columns}"


def _digits(a: int, b: int) -> list[tuple[int, int]]:
    """Both numbers' digits in pairs, from the right, the shorter one filled with zeros."""
    width = max(len(str(a)), len(str(b)))
    return list(zip(map(int, reversed(f"{a:0{width}d}")), map(int, reversed(f"{b:0{width}d}")), strict=True))
