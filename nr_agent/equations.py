"""Equations and comparisons in running text, read with a small parser of our own and checked in exact rationals.

Model text is never evaluated: the grammar knows digits, `+ - * /`, brackets and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_EQUATION = re.compile(
    r"(?<![\w.)])(?!(?<=\d,)\d{3}(?!\d))(-?[\d(][\d+\-*/\u00d7\u00f7\u00b7(). ]{0,200}?)\s*=\s*(-?\d+(?:\.\d+)?)"
    r"(?!\d|\w|\.\d|,\d{3}(?!\d)|[ \t]*[%*/+\u00d7\u00f7\u00b7(]|[ \t]*-[ \t]*\d"  # the right side ends here
    r"|[ \t]+(?:\d+/\d+(?!\d|[ \t]*=)|[Rr](?:\d|em\b|emainder\b|[ \t]*=?[ \t]*\d)))"  # no fraction, no rest
)
_BEGUN_BEFORE = re.compile(r"(?<!\*)[^\s*][ \t]*[-*/^+\u00d7\u00f7\u00b7%][ \t]*$")
"""The left side began before what is arithmetic in it: `2^3 + 1`, `3x + 2*4`. A bullet or bold is no operator."""
_NUMBERED = re.compile(r".*\d\.\s+(?=[-\d(])")
"""The number of a list, or the end of a sentence, before an expression: `1. 3 + 4`."""
_TWO_NUMBERS = re.compile(r"\d\s+\d")
_COMPARISON = re.compile(
    r"(?:^|[:,.] |=)(?:[A-Z][a-z]+ )?(\d+)([<>=])(\d+)"
    r"(?=[,:]|\.(?!\d)|\s*$)",  # the right side ends here, and so does what is said of it
    re.MULTILINE,
)
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[-+*/()\u00d7\u00f7\u00b7]")
_OPERATOR = re.compile(r"[-+*/\u00d7\u00f7\u00b7]")
_MAX_DEPTH = 20
_LOOK_BACK = 20


@dataclass(frozen=True)
class Equation:
    """`left = claimed` as it was written.

    Attributes:
        left: the left side as written, without spaces.
        value: what the left side comes to.
        claimed: what the text says that it comes to.
        start: where it begins in the text.
        end: where it ends.
        decimals: how many decimal places the claim is given to.
    """

    left: str
    value: Fraction
    claimed: Fraction
    start: int
    end: int
    decimals: int = 0

    @property
    def holds(self) -> bool:
        """Whether it is right; of decimals, whether they are the first ones, or rounded.

        A program's last digits (`1.87*9=16.830000000000002`) are no mistake: a billionth more or less is none.
        """
        if not self.decimals:
            return self.value == self.claimed
        last = Fraction(1, 10**self.decimals)
        off = abs(self.value - self.claimed)
        # Cut off counts only where there is no end: of 5.99+3 = 8.9 a digit is missing.
        endless = (self.value * 10 ** (self.decimals + 2)).denominator != 1
        cut = abs(self.claimed) <= abs(self.value) < abs(self.claimed) + last and self.value * self.claimed >= 0
        return (endless and cut) or off <= last / 2 or off <= abs(self.value) / 10**9


@dataclass(frozen=True)
class Comparison:
    """`left < right`, `left > right` or `left = right`, of whole numbers.

    Attributes:
        left: the first number.
        sign: how they are said to compare.
        right: the second number.
        sign_at: where the sign stands in the text.
    """

    left: int
    sign: str
    right: int
    sign_at: int

    @property
    def holds(self) -> bool:
        """Whether it is right."""
        return self.sign == ("<" if self.left < self.right else ">" if self.left > self.right else "=")


def equations(text: str) -> list[Equation]:
    """Every `expression = number` in a text whose left side holds an operation.

    `2*36 = 72`, `3+4+5=12`, `(1+2)*3=9` count; `x = 5`, `5 = 5` and `7 is 2*3+1` do not. A left side that
    is no arithmetic, or divides by zero, is passed over, and so is one that is only the end of an expression
    (`2^3 + 1 = 9`), and a right side that is the beginning of one (`3/4 = 75%`, `17/5 = 3 remainder 2`).
    """
    found = []
    for match in _EQUATION.finditer(text):
        written, start = match.group(1), match.start()
        if numbered := _NUMBERED.match(written):
            written, start = written[numbered.end() :], start + numbered.end()
        elif _BEGUN_BEFORE.search(text, max(0, start - _LOOK_BACK), start):
            continue
        left = written.replace(" ", "")
        if not _OPERATOR.search(left, 1) or _TWO_NUMBERS.search(written):
            continue
        value = evaluate(left)
        if value is not None:
            decimals = len(match.group(2).partition(".")[2])
            found.append(Equation(left, value, Fraction(match.group(2)), start, match.end(), decimals))
    return found


def comparisons(text: str) -> list[Comparison]:
    """Every comparison of two whole numbers in a text, also behind what one of them is: `2*36=72>70`.

    They count where a claim begins, and are written without spaces: the end of somebody's `10% of 50=5` is none.
    """
    return [Comparison(int(match[1]), match[2], int(match[3]), match.start(2)) for match in _COMPARISON.finditer(text)]


def evaluate(expression: str) -> Fraction | None:
    """The exact value of an arithmetic expression, or None where it is none."""
    tokens = _TOKEN.findall(expression)
    if "".join(tokens) != expression.replace(" ", "") or not tokens:
        return None
    try:
        return _Parser(tokens).parse()
    except (ValueError, ZeroDivisionError, IndexError):
        return None


class _Parser:
    """Recursive descent over `expression := term (+|- term)*`, `term := factor (*|/ factor)*`."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def parse(self) -> Fraction:
        value = self._expression()
        if self.at != len(self.tokens):
            raise ValueError("something is left over")
        return value

    def _expression(self) -> Fraction:
        value = self._term()
        while self._next() in ("+", "-"):
            value = value + self._term() if self._take() == "+" else value - self._term()
        return value

    def _term(self) -> Fraction:
        value = self._factor()
        while self._next() in ("*", "/", "\u00d7", "\u00f7", "\u00b7"):
            value = value / self._factor() if self._take() in ("/", "\u00f7") else value * self._factor()
        return value

    def _factor(self) -> Fraction:
        piece = self._take()
        if piece not in ("-", "("):
            return Fraction(piece)
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ValueError("too deep")
        value = -self._factor() if piece == "-" else self._expression()
        self.depth -= 1
        if piece == "-":
            return value
        if self._take() != ")":
            raise ValueError("a bracket is open")
        return value

    def _next(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]
