"""What baselines read and write: trial answers, words of doubt, sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from nr_agent.engine.protocol import Segment, TextCodec
from nr_agent.equations import evaluate
from nr_agent.tokens import CORRECTION_TOKENS, END_OF_TEXT, END_THINK, THINK, TURN_END, TURN_START

SENTENCE_ENDS: Final = (".", "?", "!", "\n")
"""Strings behind which a sentence has ended."""

CLOSING: Final = "\n</think>\n\n"

_SIGNS: Final = ("", " ", "\n", "(", '"', "*")


def boxed(text: str) -> str:
    """What stands before the brace that closes a box opened in front of the text; empty if none does."""
    depth = 1
    for at, sign in enumerate(text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if not depth:
            return text[:at].strip()
    return ""


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are equal: in value if they are arithmetic, else letter by letter without spaces."""
    left, right = _plain(first), _plain(second)
    if left == right:
        return True
    value = _value(left)
    return value is not None and value == _value(right)


def says(text: str, words: Iterable[str]) -> bool:
    """Whether one of these words is in a text, as a whole word."""
    return re.search(rf"\b(?:{'|'.join(map(re.escape, words))})\b", text, re.IGNORECASE) is not None


def spells_control(codec: TextCodec, text: str) -> bool:
    """Whether a text, which a model may have spelled in letters, would be encoded with a control token in it."""
    known = (THINK, END_THINK, TURN_START, TURN_END, END_OF_TEXT, *CORRECTION_TOKENS)
    return any(token in text for token in (*known, *(codec.decode([end]) for end in codec.end_ids)))


def word_ids(codec: TextCodec, words: Iterable[str]) -> tuple[int, ...]:
    """The tokens that are one of these words, in any case, alone or behind a space or a sign."""
    found: dict[int, None] = {}
    for word in words:
        for form in (word, word.capitalize(), word.upper()):
            for sign in _SIGNS:
                ids = codec.encode(sign + form)
                # Behind a sign it may be cut off as a token of its own.
                if ids and codec.decode(ids[-1:]).strip(' \n("*') == form:
                    found[ids[-1]] = None
    return tuple(found)


def position_of(codec: TextCodec, segment: Segment, words: Iterable[str]) -> int:
    """The absolute position of the first token of the word that a segment ends with."""
    count = 1
    while count < len(segment.ids) and not any(word in codec.decode(segment.ids[-count:]) for word in words):
        count += 1
    return segment.ref.length - count


def _value(answer: str) -> Fraction | None:
    try:
        return Fraction(answer)
    except (ValueError, ZeroDivisionError):
        return evaluate(answer)


def _plain(answer: str) -> str:
    return re.sub(r"[\s$,]|\\[,;! ]|\\text\b|\.$", "", answer).lower()
