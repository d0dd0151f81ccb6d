"""What goes to the terminal: model text made harmless, and events in words."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

_ESCAPES = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)


def sanitise(text: str) -> str:
    """Text without what could move a cursor, change colours or reorder what a person reads."""
    return _ESCAPES.sub("\ufffd", text)


def to_json(value: BaseModel, indent: int | None = None) -> str:
    """A model as JSON in ASCII: whatever the encoding, nothing is lost, and no terminal obeys a character in it."""
    return json.dumps(json.loads(value.model_dump_json()), indent=indent)


def one_line(text: str, width: int) -> str:
    """Text in one line of at most `width` characters."""
    flat = " ".join(sanitise(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "\u2026"


def failure_line(event: dict[str, Any]) -> str:
    """A failure event in a line: level, kind, score, and the channels behind it."""
    channels = ", ".join(f"{item['channel']} (z {item['z']:+.1f})" for item in event["evidence"]["channels"][:3])
    return (
        f"{event['level']} / {event['kind']}: score {event['score']:.2f} over {event['threshold']:.2f}, "
        f"{event['evidence']['pattern']} in {channels or 'no channel'}"
    )


def intervention_line(intervention: dict[str, Any], text: str) -> str:
    """An intervention in a line: what was done, by which policy, with which words."""
    done = {"recheck": "recheck", "branch": "branch", "stop": "stop", "ask_human": "ask a human"}[intervention["kind"]]
    taken = f", {intervention['rolled_back']} tokens taken back" if intervention["rolled_back"] else ""
    forks = f", {len(intervention['branches'])} forks" if intervention["branches"] else ""
    said = f", inserts {sanitise(text).strip()!r}" if text.strip() else ""
    return f"{done}{taken}{forks}{said}"
