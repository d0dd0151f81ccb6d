"""How a signal fluctuates: spectral features of a sliding window over a group's mean reading."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 32
"""Tokens a window. Its spectrum has `WINDOW // 2` bins once the mean is taken out."""

NAMES = ("high_ratio", "low_ratio", "dominant_ratio", "entropy", "variation")


def spectral_features(signal: Tensor) -> Tensor:
    """Features of every window of a signal.

    Args:
        signal: `[tokens]`, at least `WINDOW` long; in standard deviations.

    Returns:
        `[tokens - WINDOW + 1, 5]`, a row for each window, in the order of `NAMES`:
        share of the power in the upper half of the spectrum; in its lowest quarter; in its strongest bin;
        entropy of the normalised spectrum, in bits; total variation energy, mean of the squared differences.

    Source: the ratios and entropies that arXiv 2604.02972 uses on MoN signals (second-hand); their cut-off
    frequencies are not known, the ones here are ours.
    """
    windows = signal.unfold(0, WINDOW, 1)
    variation = windows.diff(dim=-1).square().mean(-1)
    power = torch.fft.rfft(windows - windows.mean(-1, keepdim=True)).abs().square()[:, 1:]
    total = power.sum(-1)
    share = power / total.clamp(min=1e-12)[:, None]
    bins = share.shape[1]
    return torch.stack(
        [
            share[:, bins // 2 :].sum(-1),
            share[:, : max(1, bins // 4)].sum(-1),
            share.max(-1).values,
            spectral_entropy(power),
            variation,
        ],
        dim=-1,
    )


def spectral_entropy(power: Tensor) -> Tensor:
    """Shannon entropy of a normalised power spectrum, in bits.

    Args:
        power: `[rows, bins]`, non-negative, the mean (bin 0) already removed.

    Returns:
        `[rows]`, from 0 (one frequency) to `log2(bins)` (white). Rows without power give 0.

    Source: Inouye et al. 1991; used on MoN signals by arXiv 2604.02972 (second-hand).
    """
    share = power / power.sum(-1, keepdim=True).clamp(min=1e-12)
    return -(share * share.clamp(min=1e-12).log2()).sum(-1)
