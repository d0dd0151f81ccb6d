"""Which channels differ between failing and sound steps: streamed, so no activations are kept."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from nr_agent.neurons.channels import Channel


class MeanDifference:
    """Standardised mean difference between two classes of steps, a channel each.

    `(mean of failing - mean of sound) / pooled standard deviation` of the steps' mean readings. As in AdaRAS
    (arXiv 2601.19847) channels whose mean changes its sign between the classes come first: of the others, only
    the level changes.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._count = torch.zeros(2, 1, dtype=torch.float64)
        self._sum = torch.zeros(2, channels, dtype=torch.float64)
        self._squares = torch.zeros(2, channels, dtype=torch.float64)

    def add(self, means: Tensor, failing: Tensor) -> None:
        """Take in steps.

        Args:
            means: `[steps, channels]`, mean reading of each channel over each step.
            failing: `[steps]` bool.
        """
        for label in (0, 1):
            chosen = means[failing == bool(label)].double()
            self._count[label] += len(chosen)
            self._sum[label] += chosen.sum(0)
            self._squares[label] += chosen.square().sum(0)

    def scores(self) -> Tensor:
        """`[channels]` float32: the standardised difference; 0 while a class is empty."""
        if (self._count < 2).any():
            return torch.zeros(self._sum.shape[1])
        mean = self._sum / self._count
        variance = (self._squares / self._count - mean.square()).clamp(min=0)
        pooled = variance.mean(0).sqrt().clamp(min=1e-9)
        return ((mean[1] - mean[0]) / pooled).float()

    def sign_flips(self) -> Tensor:
        """`[channels]` bool: whether the mean changes its sign between the classes."""
        mean = self._sum / self._count.clamp(min=1)
        return mean[0] * mean[1] < 0


def choose(
    ranking: MeanDifference, channels: Sequence[Channel], allowed: Sequence[bool], top: int
) -> list[tuple[Channel, float]]:
    """The `top` channels by size of the difference; sign flips count half as much again.

    The bonus keeps the published preference without emptying the choice on small models, where few signs flip.
    """
    scores, flips = ranking.scores(), ranking.sign_flips()
    weight = scores.abs() * (1 + 0.5 * flips)
    order = [i for i in weight.argsort(descending=True).tolist() if allowed[i]]
    return [(channels[i], float(scores[i])) for i in order[:top]]


def choose_random(
    channels: Sequence[Channel], allowed: Sequence[bool], top: int, seed: int
) -> list[tuple[Channel, float]]:
    """The control: as many channels, drawn blindly."""
    pool = [channel for channel, ok in zip(channels, allowed, strict=True) if ok]
    return [(channel, 0.0) for channel in random.Random(seed).sample(pool, min(top, len(pool)))]
