"""Linear probes and what they are given: the plain rivals that a detector of few channels has to stand beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nr_agent.detection.collect import read_hidden
from nr_agent.detection.traces import Traced

if TYPE_CHECKING:
    from nr_agent.detection.card import Part

_BUCKETS = 1024
_WIDEST = 2048
"""Wider states are projected: five of them a step are kept."""
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
_ITERATIONS = 40


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on standardised features.

    Attributes:
        mean: `[features]`, what is usual.
        scale: `[features]`, its standard deviation.
        weight: `[features]`.
        bias: scalar.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def score(self, features: Tensor) -> Tensor:
        """Scores from 0 to 1."""
        return torch.sigmoid(((features - self.mean) / self.scale).clamp(-8, 8) @ self.weight + self.bias)


def train_linear(features: Tensor, labels: Tensor, held: tuple[Tensor, Tensor]) -> LinearProbe:
    """Logistic regression with an L2 penalty, the one of a few that has the lowest loss on held steps.

    Args:
        features: `[rows, features]`.
        labels: `[rows]`, 0 or 1.
        held: features and labels of other problems' steps, to choose the penalty by.
    """
    mean, scale = features.mean(0), features.std(0).clamp(min=1e-4)
    known = ((features - mean) / scale).clamp(-8, 8)
    probes = []
    for penalty in _PENALTIES:
        weight, bias = _fit(known, labels, penalty)
        probe = LinearProbe(mean, scale, weight, bias)
        loss = nn.functional.binary_cross_entropy(probe.score(held[0]), held[1])
        probes.append((float(loss), probe))
    return min(probes, key=lambda pair: pair[0])[1]


@dataclass(frozen=True)
class Surroundings:
    """What the controls see of every step, each `[steps, features]`, and where a step's row is.

    Attributes:
        rows: row of each step, by trace and number of the step.
        features: `text_only`: hashed counts of token ids and pairs; `last_layer_probe`: the last layer's state that
            wrote the step's last token; `step_statistics_probe`: mean, max, min, std and last of the last layer's
            states over the step.
    """

    rows: dict[tuple[int, int], int]
    features: dict[str, Tensor]

    def of(self, name: str, part: Part) -> Tensor:
        """A control's features of the steps of a split."""
        places = part.extents[:, 0].long().tolist()
        index = [self.rows[pair] for pair in zip(part.traces.tolist(), places, strict=True)]
        return self.features[name][index]


def read_surroundings(model: Any, traces: Sequence[Traced]) -> Surroundings:
    """What the controls see, in one more pass over the traces.

    Wide hidden states are projected to 2,048 random directions first, each dimension standardised before: a few of
    them are a hundred times as large as the others, and would be all that is left.
    """
    rows: dict[tuple[int, int], int] = {}
    text: list[Tensor] = []
    last: list[Tensor] = []
    stats: list[Tensor] = []
    usual: tuple[Tensor, Tensor] | None = None
    mixing = torch.zeros(0)
    for number, hidden in read_hidden(model, traces):
        hidden, width = hidden.float(), hidden.shape[1]
        if width > _WIDEST:
            if usual is None:
                usual = _moments(model, traces)
                mixing = torch.randn(width, _WIDEST, generator=torch.Generator().manual_seed(0)) / width**0.5
            hidden = ((hidden - usual[0]) / usual[1]) @ mixing
        traced = traces[number]
        for place, step in enumerate(traced.steps):
            states = hidden[step.start - 1 : step.end - 1]
            spread = states.std(0, correction=0)
            summary = torch.cat([states.mean(0), states.amax(0), states.amin(0), spread, states[-1]])
            rows[number, place] = len(text)
            text.append(bag_of_tokens(traced.ids[step.start : step.end]))
            last.append(states[-1].clone())
            stats.append(summary)
    features = {
        "text_only": torch.stack(text),
        "last_layer_probe": torch.stack(last),
        "step_statistics_probe": torch.stack(stats),
    }
    return Surroundings(rows, features)


def _moments(model: Any, traces: Sequence[Traced]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each dimension of the last layer's states, in a pass of its own."""
    count, total, squares = 0, torch.zeros(1).double(), torch.zeros(1).double()
    for _, hidden in read_hidden(model, traces):
        states = hidden.double()
        count, total, squares = count + len(states), total + states.sum(0), squares + states.square().sum(0)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp(min=1e-12).sqrt().float()


def bag_of_tokens(ids: Sequence[int]) -> Tensor:
    """Logarithmic counts of token ids and of pairs of them, hashed: `[1024]`."""
    counts = torch.zeros(_BUCKETS)
    single = torch.tensor(ids, dtype=torch.long)
    pairs = single[:-1] * 1_000_003 + single[1:] * 7919 + 17
    half = _BUCKETS // 2
    counts.index_add_(0, single % half, torch.ones(len(single)))
    counts.index_add_(0, half + pairs % half, torch.ones(len(pairs)))
    return counts.log1p()


def _fit(features: Tensor, labels: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(features.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(features @ weight + bias, labels)
        loss = loss + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()
