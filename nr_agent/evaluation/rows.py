"""The rows of a benchmark: a problem under an arm each, kept so that it is not run twice."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from nr_agent.errors import ConfigurationError
from nr_agent.evaluation.kept import write_whole

Key = tuple[str, str, int]
"""Arm, task and seed: what makes a row the only one of its kind."""


@dataclass(frozen=True)
class Row:
    """One problem under one arm.

    Attributes:
        arm: the arm.
        task: the problem's family.
        seed: the problem's seed.
        right: whether the answer is right.
        answer: the answer.
        tokens: all tokens that were generated or inserted, discarded ones included.
        interventions: how often the controller intervened, by kind.
        stop_reason: how the thinking ended.
        episode_id: the episode in the store.
        steps: steps of thinking, discarded ones included.
    """

    arm: str
    task: str
    seed: int
    right: bool
    answer: str | None
    tokens: int
    interventions: dict[str, int]
    stop_reason: str
    episode_id: str
    steps: int = 0

    @property
    def key(self) -> Key:
        """What it is the row of."""
        return self.arm, self.task, self.seed


def read_rows(path: Path) -> dict[Key, Row]:
    """The rows of a file; of several with the same key the last one. A last line that was not written whole is none.

    Raises:
        ConfigurationError: another line is no row.
    """
    lines = path.read_text().rstrip().split("\n") if path.exists() else []
    rows = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = Row(**json.loads(line))
        except (ValueError, TypeError) as error:
            if number == len(lines):
                break
            raise ConfigurationError(
                f"line {number} of {path} is no row: {error}", hint="take it out, or write into another folder (--out)"
            ) from error
        rows[row.key] = row
    return rows


def keep_rows(path: Path, rows: Iterable[Row]) -> dict[Key, Row]:
    """Add rows to a file, in place of those with the same key; all that it holds then."""
    # Read anew: another process may have added rows of its arms meanwhile.
    known = read_rows(path) | {row.key: row for row in rows}
    write_whole(path, "".join(json.dumps(asdict(row)) + "\n" for row in known.values()))
    return known
