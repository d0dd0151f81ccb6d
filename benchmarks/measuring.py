"""How two ways of doing the same work are compared: paired rounds in one run, the median of their ratios."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """What one way costs, measured in the other.

    Attributes:
        what: numerator / denominator, in words.
        ratio: median over the rounds; None where it could not be measured.
        low: the smallest of the rounds.
        high: the largest.
        target: at most this was wanted.
        note: what a reader must know, such as why it could not be measured.
    """

    what: str
    ratio: float | None
    low: float | None = None
    high: float | None = None
    target: float | None = None
    note: str = ""


def compare(
    what: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    target: float | None = None,
    rounds: int = 7,
    note: str = "",
) -> Ratio:
    """Run both in turns, after one round that does not count; which goes first alternates.

    Args:
        what: numerator / denominator, in words.
        ours: does the work and returns its seconds.
        theirs: does the same work the other way.
        target: at most this is wanted.
        rounds: rounds that count.
        note: for the reader.
    """
    ours(), theirs()
    ratios = []
    for number in range(rounds):
        if number % 2:
            denominator, numerator = theirs(), ours()
        else:
            numerator, denominator = ours(), theirs()
        ratios.append(numerator / denominator)
    print(f"  {what}: {statistics.median(ratios):.3f}", flush=True)
    return Ratio(what, statistics.median(ratios), min(ratios), max(ratios), target, note)


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of a piece of work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def table(rows: Sequence[Ratio]) -> str:
    """The rows in Markdown."""
    lines = ["| what | ratio | from - to | target |", "| --- | --- | --- | --- |"]
    for row in rows:
        ratio = "not measured" if row.ratio is None else f"{row.ratio:.3f}"
        spread = "" if row.low is None or row.high is None else f"{row.low:.3f} - {row.high:.3f}"
        target = "" if row.target is None else f"at most {row.target:.2f}"
        lines.append(f"| {row.what}{f' ({row.note})' if row.note else ''} | {ratio} | {spread} | {target} |")
    return "\n".join(lines)


def write(file: Path | None, about: dict[str, Any], rows: Sequence[Ratio]) -> None:
    """The rows as JSON, where a file was asked for."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
