"""Which problems a detector learns from, and whether what they hold is enough to learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from nr_agent.detection.labels import StepLabels
from nr_agent.errors import DetectorError
from nr_agent.events import LEVELS, Level

SPLITS = ("train", "held", "calibration", "test")
_SHARES = (0.45, 0.2, 0.175, 0.175)

LEAST = {"train": 5, "held": 1, "calibration": 0, "test": 1}
"""Failing steps, and sound ones, that a split must hold. From fewer than a few the ranking of channels is arbitrary."""


def split_of(text: str, seed: int) -> str:
    """The split that a problem belongs to: by its text, so that no problem is in two."""
    point = int(hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()[:8], 16) / 2**32
    for name, share in zip(SPLITS, _SHARES, strict=True):
        point -= share
        if point < 0:
            return name
    return SPLITS[-1]


def fittable(labelled: Sequence[Sequence[StepLabels]], splits: Sequence[str]) -> tuple[list[Level], dict[Level, str]]:
    """The levels that can be learned, and why the others cannot.

    Args:
        labelled: labels of the steps, a list a trace.
        splits: the split of each trace.

    Raises:
        DetectorError: none can.
    """
    left_out: dict[Level, str] = {}
    for level in LEVELS:
        for name in SPLITS:
            steps = [
                label.of(level)
                for labels, split in zip(labelled, splits, strict=True)
                if split == name
                for label in labels
                if label.of(level) is not None
            ]
            failing, least = sum(map(bool, steps)), LEAST[name]
            if not steps or failing < least or len(steps) - failing < least:
                left_out[level] = f"{failing} of the {len(steps)} steps of the {name} problems fail"
                if least > 1:
                    left_out[level] += f", where {least} that fail and {least} that do not are needed"
                break
    if len(left_out) == len(LEVELS):
        raise DetectorError(
            "; ".join(f"{level}: {reason}" for level, reason in left_out.items()),
            hint="fit on more problems, or on others: too hard or too easy for the model, they teach nothing",
        )
    return [level for level in LEVELS if level not in left_out], left_out
