"""How far one score ranks ahead of another, with intervals that know that steps of one trace belong together."""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS = 1000


class TraceDraws:
    """Test traces drawn with replacement, the same draws for every score, so that differences are paired.

    Args:
        labels: `[steps]`, 0 or 1.
        traces: `[steps]`, number of the trace that each belongs to.
        draws: bootstrap samples.
        seed: of the draws.
    """

    def __init__(self, labels: Tensor, traces: Tensor, *, draws: int = DRAWS, seed: int = 0) -> None:
        _, place = traces.unique(return_inverse=True)
        count = int(place.max()) + 1 if len(place) else 0
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(max(1, count), (draws, count), generator=generator)
        times = torch.zeros(draws, count).scatter_add_(1, drawn, torch.ones(draws, count))
        self._weights = times[:, place].double()
        self._failing = labels > 0.5

    def auroc(self, scores: Tensor) -> Tensor:
        """The area under the ROC curve of every draw, ties half: `[draws]`; NaN where a draw has steps of one kind."""
        _, rank = scores.unique(return_inverse=True)
        shape = len(self._weights), int(rank.max()) + 1
        index = rank.expand(len(self._weights), -1)
        failing = torch.zeros(shape).double().scatter_add_(1, index, self._weights * self._failing)
        sound = torch.zeros(shape).double().scatter_add_(1, index, self._weights * ~self._failing)
        below = sound.cumsum(1) - sound / 2
        return (failing * below).sum(1) / (failing.sum(1) * sound.sum(1))


def middle(values: Tensor) -> list[float]:
    """The 95% interval of what draws gave."""
    known = values[~values.isnan()]
    if not len(known):
        return [float("nan")] * 2
    return [round(end, 4) for end in known.quantile(torch.tensor([0.025, 0.975]).double()).tolist()]
