"""Values as every database takes them: no NUL, no lone surrogate, no NaN inside JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

REPLACEMENT = "\ufffd"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_WHOLE = {int, bool, type(None)}
_NUMBERS = _WHOLE | {float}


def clean_text(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD: PostgreSQL refuses them, SQLite garbles them."""
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub(REPLACEMENT, text)


def clean_json(value: Any) -> Any:
    """The value as strict JSON: NaN and infinities become None, texts are cleaned, keys become texts.

    What JSON has no form for (a date, a path, an array) becomes its text.
    """
    # By the exact type first: every value of every record comes through here.
    kind = type(value)
    if kind in _WHOLE:
        return value
    if kind is str:
        return clean_text(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is dict:
        return {
            clean_text(key if type(key) is str else str(key)): item if type(item) in _WHOLE else clean_json(item)
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        kinds = set(map(type, value))
        if kinds <= _WHOLE or (kinds <= _NUMBERS and all(map(_is_finite, value))):
            return list(value)
        return [clean_json(item) for item in value]
    return _clean_other(value)


def _clean_other(value: Any) -> Any:
    """A value of a subclass, or of a type of its own."""
    if isinstance(value, str):
        return clean_text(str(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return clean_json(float(value))
    if isinstance(value, Mapping):
        return clean_json(dict(value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        return clean_json(list(value))
    return clean_text(str(value))


def _is_finite(number: float | None) -> bool:
    return number is None or math.isfinite(number)
