"""How a signal fluctuates: spectral features of a sliding window over a group's mean reading."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

WINDOW = 32
"""Tokens a window. Its spectrum has `WINDOW // 2` bins once the mean is taken out."""

ANCHOR_EVERY = 512
"""Tokens after which the running sums are computed anew from the window: what rounding adds up to stays bounded."""

NAMES = ("high_ratio", "low_ratio", "dominant_ratio", "entropy", "variation")


class SlidingSpectrum:
    """The spectral features of the last `WINDOW` values of many signals, updated with each new value.

    A new value costs one multiplication and addition a frequency, whatever the window's length: every Fourier sum
    gains the value that comes and loses the one that goes. The sums turn with the absolute position, so nothing is
    rotated and no damping is needed (the modulated sliding DFT: Duda 2010, IEEE Signal Processing Magazine 27(6));
    only rounding adds up, in double precision, until the next anchor.

    Values may come one by one while a model thinks or as a whole trace: the features are the same.

    Args:
        history: `[rows, up to WINDOW]`, what came before, the newest last; missing values are zeros.
        anchor_every: tokens after which the sums are computed anew.
    """

    def __init__(self, history: Tensor, *, anchor_every: int = ANCHOR_EVERY) -> None:
        rows = history.shape[0]
        self.anchor_every = anchor_every
        # The window's values; its oldest leaves with the next one.
        self._window = history.new_zeros(rows, WINDOW, dtype=torch.float64)
        kept = history[:, -WINDOW:].double()
        self._window[:, WINDOW - kept.shape[1] :] = kept
        self._twiddles = _twiddles(history.device)
        self._phase = torch.zeros(rows, dtype=torch.long, device=history.device)
        self._since = 0
        self._sums: Tensor
        self._variation: Tensor
        self._anchor()

    def push(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Take in the next values of every row.

        Args:
            values: `[rows, tokens]`; in standard deviations.
            lengths: `[rows]`, how many of them count where rows have fewer than the longest; all by default.

        Returns:
            `[rows, tokens, 5]`, in the order of `NAMES`, for the window that ends with each value, in the type of
            `values`. What is behind a row's length means nothing.
        """
        blocks = []
        for begin in range(0, values.shape[1], self.anchor_every):
            block = values[:, begin : begin + self.anchor_every]
            counted = None if lengths is None else (lengths - begin).clamp(0, block.shape[1])
            blocks.append(self._block(block, counted))
        empty = values.new_zeros(values.shape[0], 0, len(NAMES))
        return torch.cat([empty, *blocks], 1)

    def select(self, rows: Tensor) -> SlidingSpectrum:
        """The signals of some rows, independent from here on: for rows that leave a batch, and for forks."""
        return SlidingSpectrum(self._window[rows], anchor_every=self.anchor_every)

    def _block(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        tokens = values.shape[1]
        if self._since + tokens > self.anchor_every:
            self._anchor()
        self._since += tokens
        whole = torch.cat([self._window, values.double()], 1)
        coming, going = whole[:, WINDOW:], whole[:, :tokens]
        turn = self._twiddles[(self._phase[:, None] + torch.arange(tokens, device=values.device)) % WINDOW]
        sums = self._sums[:, None] + ((coming - going)[..., None] * turn).cumsum(1)
        jumps = whole.diff(dim=1).square()
        variation = self._variation[:, None] + (jumps[:, WINDOW - 1 :] - jumps[:, :tokens]).cumsum(1)
        if tokens:
            self._keep(whole, sums, variation, lengths)
        power = sums.abs().square()
        return _describe(power, variation.clamp(min=0) / (WINDOW - 1)).to(values.dtype)

    def _keep(self, whole: Tensor, sums: Tensor, variation: Tensor, lengths: Tensor | None) -> None:
        """Remember where every row ended."""
        rows, tokens = sums.shape[:2]
        counted = torch.full_like(self._phase, tokens) if lengths is None else lengths.to(self._phase)
        every = torch.arange(rows, device=sums.device)
        last, moved = (counted - 1).clamp(min=0), counted > 0
        self._sums = torch.where(moved[:, None], sums[every, last], self._sums)
        self._variation = torch.where(moved, variation[every, last], self._variation)
        self._window = whole.gather(1, counted[:, None] + torch.arange(WINDOW, device=sums.device))
        self._phase = (self._phase + counted) % WINDOW

    def _anchor(self) -> None:
        """Compute the sums from the window as it is."""
        turn = self._twiddles[(self._phase[:, None] + torch.arange(WINDOW, device=self._phase.device)) % WINDOW]
        self._sums = (self._window[..., None] * turn).sum(1)
        self._variation = self._window.diff(dim=1).square().sum(1)
        self._since = 0


@lru_cache(maxsize=8)
def _twiddles(device: torch.device) -> Tensor:
    """`[WINDOW, bins]`: row `p` turns what is read at a position congruent to `p`."""
    angle = -2 * math.pi / WINDOW * torch.arange(WINDOW, dtype=torch.float64, device=device)
    bins = torch.arange(1, WINDOW // 2 + 1, device=device)
    turned = torch.polar(torch.ones(1, dtype=torch.float64, device=device), angle)
    return turned[(torch.arange(WINDOW, device=device)[:, None] * bins) % WINDOW]


def spectral_features(signals: Tensor) -> Tensor:
    """Features of every window of a signal, or of several signals of one length.

    Args:
        signals: `[tokens]` or `[signals, tokens]`, at least `WINDOW` long; in standard deviations.

    Returns:
        `[..., tokens - WINDOW + 1, 5]`, a row for each window, in the order of `NAMES`:
        share of the power in the upper half of the spectrum; in its lowest quarter; in its strongest bin;
        entropy of the normalised spectrum, in bits; total variation energy, mean of the squared differences.

    Source: the ratios and entropies that arXiv 2604.02972 uses on MoN signals (second-hand); their cut-off
    frequencies are not known, the ones here are ours.
    """
    rows = signals if signals.ndim > 1 else signals[None]
    features = SlidingSpectrum(rows[:, : WINDOW - 1]).push(rows[:, WINDOW - 1 :])
    return features if signals.ndim > 1 else features[0]


def spectral_entropy(power: Tensor) -> Tensor:
    """Shannon entropy of a normalised power spectrum, in bits.

    Args:
        power: `[..., bins]`, non-negative, the mean (bin 0) already removed.

    Returns:
        `[...]`, from 0 (one frequency) to `log2(bins)` (white). Rows without power give 0.

    Source: Inouye et al. 1991; used on MoN signals by arXiv 2604.02972 (second-hand).
    """
    share = power / power.sum(-1, keepdim=True).clamp(min=1e-12)
    return -(share * share.clamp(min=1e-12).log2()).sum(-1)


def _describe(power: Tensor, variation: Tensor) -> Tensor:
    """The features of power spectra `[..., bins]` and their total variation `[...]`."""
    share = power / power.sum(-1, keepdim=True).clamp(min=1e-12)
    bins = share.shape[-1]
    return torch.stack(
        [
            share[..., bins // 2 :].sum(-1),
            share[..., : max(1, bins // 4)].sum(-1),
            share.max(-1).values,
            spectral_entropy(power),
            variation,
        ],
        dim=-1,
    )
