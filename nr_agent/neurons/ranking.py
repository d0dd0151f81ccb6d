"""Which channels differ between failing and sound steps: streamed, so no activations are kept."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nr_agent.neurons.channels import Channel

Ranking = Literal["mean_difference", "logit_attribution"]
"""How channels are ranked: by their readings, or by what they added to the logits of the tokens that were written
(direct logit attribution). Both by the difference between failing and sound steps."""


class MeanDifference:
    """Standardised mean difference between two classes of steps, a channel each.

    `(mean of failing - mean of sound) / pooled standard deviation` of the steps' mean readings. As in AdaRAS
    (arXiv 2601.19847) channels whose mean changes its sign between the classes come first: of the others, only
    the level changes.

    Means and squared deviations of both classes are merged as steps come (Chan et al. 1983): no activations are
    kept, and a large common level takes no digits from the variance.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._count = torch.zeros(2, 1, dtype=torch.float64)
        self._mean = torch.zeros(2, channels, dtype=torch.float64)
        self._deviations = torch.zeros(2, channels, dtype=torch.float64)

    def add(self, means: Tensor, failing: Tensor) -> None:
        """Take in steps.

        Args:
            means: `[steps, channels]`, mean reading of each channel over each step.
            failing: `[steps]` bool.
        """
        for label in (0, 1):
            chosen = means[failing == bool(label)].double()
            if not len(chosen):
                continue
            before, new = self._count[label].clone(), len(chosen)
            mean = chosen.mean(0)
            off = mean - self._mean[label]
            self._count[label] += new
            self._mean[label] += off * new / self._count[label]
            spread = (chosen - mean).square().sum(0)
            self._deviations[label] += spread + off.square() * before * new / self._count[label]

    def scores(self) -> Tensor:
        """`[channels]` float32: the standardised difference; 0 while a class is empty."""
        if (self._count < 2).any():
            return torch.zeros(self._mean.shape[1])
        pooled = (self._deviations / self._count).mean(0).sqrt().clamp(min=1e-9)
        return ((self._mean[1] - self._mean[0]) / pooled).float()

    def sign_flips(self) -> Tensor:
        """`[channels]` bool: whether the mean changes its sign between the classes."""
        return self._mean[0] * self._mean[1] < 0


class StepDifference:
    """The difference in a step's mean reading, or in its last one, whichever is larger: a channel each.

    Some channels go another way through the whole of a failing step, some only once it is whole.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._looks = MeanDifference(channels), MeanDifference(channels)

    def add(self, means: Tensor, lasts: Tensor, failing: Tensor) -> None:
        """Take in steps.

        Args:
            means: `[steps, channels]`, mean reading of each channel over each step.
            lasts: `[steps, channels]`, its reading at the step's end.
            failing: `[steps]` bool.
        """
        for look, values in zip(self._looks, (means, lasts), strict=True):
            look.add(values, failing)

    def scores(self) -> Tensor:
        """`[channels]` float32: the standardised difference that is larger; 0 while a class is empty."""
        mean, last = (look.scores() for look in self._looks)
        return torch.where(self._last_is_larger(), last, mean)

    def sign_flips(self) -> Tensor:
        """`[channels]` bool: whether what differs changes its sign between the classes."""
        mean, last = (look.sign_flips() for look in self._looks)
        return torch.where(self._last_is_larger(), last, mean)

    def _last_is_larger(self) -> Tensor:
        mean, last = (look.scores().abs() for look in self._looks)
        return last > mean


def choose(
    ranking: StepDifference,
    channels: Sequence[Channel],
    allowed: Sequence[bool],
    top: int,
    *,
    readings: StepDifference | None = None,
) -> list[tuple[Channel, float]]:
    """The `top` channels by size of the difference; sign flips count half as much again.

    Their scores are signed as their readings differ, where another ranking than that of the readings chose them: a
    channel's sign says which way it moves.

    The bonus keeps the published preference without emptying the choice on small models, where few signs flip.
    """
    scores, flips = ranking.scores(), ranking.sign_flips()
    weight = scores.abs() * (1 + 0.5 * flips)
    order = [i for i in weight.argsort(descending=True).tolist() if allowed[i]]
    signed = scores if readings is None else scores.abs() * readings.scores().sign()
    return [(channels[i], float(signed[i])) for i in order[:top]]


def choose_random(
    channels: Sequence[Channel], allowed: Sequence[bool], top: int, seed: int, *, readings: StepDifference
) -> list[tuple[Channel, float]]:
    """The control: as many channels, drawn blindly. Their scores are their own, so that they are turned the same way.

    Args:
        channels: the pool.
        allowed: which of them may be drawn.
        top: how many.
        seed: of the draw.
        readings: how each channel's readings differ.
    """
    scores = readings.scores().tolist()
    pool = [number for number, ok in enumerate(allowed) if ok]
    return [(channels[i], scores[i]) for i in random.Random(seed).sample(pool, min(top, len(pool)))]
