"""Why an event was raised: which channels moved, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from nr_agent.detection.spectrum import WINDOW, spectral_features
from nr_agent.events import ChannelEvidence

SHOWN = 5
"""Channels that an event names."""


def name_channels(values: Tensor, addresses: Sequence[str], start: int) -> list[ChannelEvidence]:
    """The channels that went furthest from what is usual, and where.

    Args:
        values: `[tokens, channels]`, standardised; row `i` wrote the token at `start + i`.
        addresses: the channels.
        start: position of the step's first token.
    """
    peaks = values.abs().max(0)
    order = peaks.values.topk(min(SHOWN, len(addresses))).indices.tolist()
    return [
        ChannelEvidence(
            channel=addresses[channel],
            z=round(float(values[peaks.indices[channel], channel]), 2),
            position=start + int(peaks.indices[channel]),
        )
        for channel in order
    ]


def classify_pattern(signal: Tensor, spectrum: Tensor | None = None) -> Literal["spike", "period", "collapse", "shift"]:
    """How a group's signal moved over the last window: in one jump, in a rhythm, downward, or to another level.

    Args:
        signal: `[tokens]`, standardised, at least `WINDOW` long.
        spectrum: `[5]`, the features of its last window, where they are known already.
    """
    window = signal[-WINDOW:]
    spread = float(window.std(correction=0)) or 1.0
    high, _, dominant, _, _ = (spectral_features(window)[0] if spectrum is None else spectrum).tolist()
    if float((window - window.median()).abs().max()) > 3 * spread and high > 0.4:
        return "spike"
    if dominant > 0.45:
        return "period"
    third = WINDOW // 3
    if float(window[:third].mean() - window[-third:].mean()) > spread:
        return "collapse"
    return "shift"
