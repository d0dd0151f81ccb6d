"""What a benchmark's folder holds was made under one model, one detector, one set of policies; or it is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nr_agent.errors import ConfigurationError

SETTINGS: Final = "settings.json"
ROWS: Final = "rows.jsonl"
MATCHED: Final = "matched.json"
NEURONS: Final = "neat.json"

_HINT = "write into another folder (--out), or ask for the settings that it was made with"


def check_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """See that what a folder holds was made with these settings. Writes nothing.

    Args:
        out: the folder; it need not exist.
        settings: by name; None for what is not used, which fits everything.

    Raises:
        ConfigurationError: it was made with others, or nobody knows with which.
    """
    kept = _kept(out)
    other = [
        f"{name} {kept[name]!r} there and {value!r} here"
        for name, value in settings.items()
        if value is not None and kept.get(name) is not None and kept[name] != value
    ]
    if other:
        raise ConfigurationError(f"{out} holds results of other settings: {', '.join(other)}", hint=_HINT)


def keep_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Keep the settings beside what is made with them, before it is made.

    What another run used and this one does not is kept, too.

    Raises:
        ConfigurationError: the folder holds what was made with others, or nobody knows with which.
    """
    check_settings(out, settings)
    used = {name: value for name, value in settings.items() if value is not None}
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / SETTINGS, json.dumps({**_kept(out), **used}, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _kept(out: Path) -> dict[str, Any]:
    """The settings of what a folder holds; none where it holds nothing that could be used again."""
    made = [name for name in (ROWS, MATCHED, NEURONS) if (out / name).exists()]
    if not made:
        return {}
    try:
        kept: dict[str, Any] = json.loads((out / SETTINGS).read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{out} holds {made[0]}, and {SETTINGS}, which would say what it was made with, cannot be read", hint=_HINT
        ) from error
    return kept
