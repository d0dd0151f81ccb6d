"""The answer in a text: boxed, announced, or simply the last line."""

from __future__ import annotations

import re
from fractions import Fraction

_BOXED = "\\boxed{"
_ANNOUNCED = re.compile(r"(?:\banswer\s+is(?:\s+still)?\b|\banswer\s*:)[:\s]*(?P<answer>[^\n]*)", re.IGNORECASE)
_FENCE = "```"
_NUMBER = re.compile(r"(?<![\w.^])-?\d+(?:\.\d+|/\d+)?(?![\w^])")
_BARE = re.compile(r"[$\u20ac\u00a3]? ?-?\d+(?:\.\d+|/\d+)? ?%?\.?")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_EMPHASIS = "*`$ \t"


def extract_answer(text: str) -> str | None:
    r"""The answer that a text gives.

    The last `\boxed{...}` with balanced braces; else what follows the last "answer is" or "Answer:" on its
    line; else the program in a fence that ends the text; else the last line that is not empty. None where there is no
    such line.
    """
    return _boxed(text) or _announced(text) or _program(text) or _last_line(text)


def states_answer(text: str) -> bool:
    r"""Whether a text says that something is the answer, by `\boxed{...}` or in words."""
    return _boxed(text) is not None or _announced(text) is not None


def same_answer(one: str, other: str) -> bool:
    """Whether two answers are written alike, or come to the same number in words of their own.

    One of the two has to be a bare number; of a sentence the last one counts: "72" is what "Together 48+24=72 clips."
    comes to.
    """
    if "".join(one.split()) == "".join(other.split()):
        return True
    texts = [_FRACTION.sub(r"\1/\2", text.replace(",", "").strip()) for text in (one, other)]
    found = [_NUMBER.findall(text) for text in texts]
    if not all(found) or not any(map(_BARE.fullmatch, texts)):
        return False
    return _value(found[0][-1]) == _value(found[1][-1])


def _value(number: str) -> Fraction | None:
    try:
        return Fraction(number)
    except ZeroDivisionError:
        return None


def _boxed(text: str) -> str | None:
    end = len(text)
    while (start := text.rfind(_BOXED, 0, end)) >= 0:
        content = _balanced(text, start + len(_BOXED))
        if content is not None and content.strip():
            return content.strip()
        end = start
    return None


def _balanced(text: str, start: int) -> str | None:
    """What stands between the brace before `start` and the one that closes it; None if none does."""
    depth = 1
    for at in range(start, len(text)):
        if text[at - 1] == "\\" and text[at] in "{}":
            continue  # an escaped brace is text
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
    return None


def _announced(text: str) -> str | None:
    for match in reversed(list(_ANNOUNCED.finditer(text))):
        answer = match["answer"].strip(_EMPHASIS)
        if answer.endswith(".") and not answer.endswith(".."):
            answer = answer[:-1].strip(_EMPHASIS)
        if answer:
            return answer
    return None


def _program(text: str) -> str | None:
    lines = text.rstrip().splitlines()
    if not lines or lines[-1].strip() != _FENCE:
        return None
    begins = [number for number, line in enumerate(lines[:-1]) if line.lstrip().startswith(_FENCE)]
    return "\n".join(lines[begins[-1] + 1 : -1]).strip() or None if begins else None


def _last_line(text: str) -> str | None:
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), None)
