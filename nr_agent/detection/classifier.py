"""One small MLP a level, its training, and its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from nr_agent.detection.views import Seen, Tokens

HIDDEN = 32


class StepClassifier(nn.Module):
    """Standardises features and maps them to a score; given tokens, it scores each, and pools them.

    Args:
        features: length of a feature vector.
        hidden: width of the one hidden layer.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.inner = nn.Linear(features, hidden)
        self.outer = nn.Linear(hidden, 1)

    def forward(self, seen: Seen) -> Tensor:
        """Scores before the sigmoid: `[steps]`."""
        return seen.pool(self.each(seen.values)) if isinstance(seen, Tokens) else self.each(seen)

    def each(self, features: Tensor) -> Tensor:
        """Scores before the sigmoid of each vector: `[rows, features]` to `[rows]`."""
        standard = ((features - self.mean) / self.scale).clamp(-8, 8)
        out: Tensor = self.outer(torch.nn.functional.gelu(self.inner(standard)))[..., 0]
        return out

    @torch.no_grad()
    def score(self, seen: Seen) -> Tensor:
        """Scores of steps, from 0 to 1."""
        return torch.sigmoid(self(seen))


@dataclass(frozen=True)
class TrainingSettings:
    """How a classifier is trained."""

    epochs: int = 60
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    patience: int = 10
    seed: int = 0


class Scorer(Protocol):
    """Scores steps."""

    def score(self, seen: Any) -> Tensor:
        """Scores of steps, from 0 to 1."""


S = TypeVar("S", bound=Scorer)


@dataclass(frozen=True)
class Trained(Generic[S]):
    """A classifier, and what is known of it before it meets other problems.

    Attributes:
        classifier: learned from all folds.
        unseen: `[steps]`, the score of each step by what did not learn from its fold.
    """

    classifier: S
    unseen: Tensor


def train_classifier(
    seen: Seen, labels: Tensor, folds: Tensor, settings: TrainingSettings | None = None
) -> Trained[StepClassifier]:
    """Train a committee, a member for each fold that it does not learn from, and make one classifier of it.

    Each member is the one of the epoch that was best on its own fold; the classifier's score before the sigmoid, of a
    step or of a token, is the mean of theirs. So every step is learned from, every step is judged by a member
    that never saw it, and neither hangs on one choice of problems.

    Args:
        seen: the steps, or their tokens.
        labels: `[steps]`, 0 or 1.
        folds: `[steps]`, number of the fold that each belongs to; the steps of a problem are in one.
        settings: see there.

    Raises:
        ValueError: there is one fold only.
    """
    settings = settings or TrainingSettings()
    folds = number_folds(folds)
    generator = torch.Generator().manual_seed(settings.seed)
    features = seen.values if isinstance(seen, Tokens) else seen
    mean, scale = features.mean(0), features.std(0).clamp(min=1e-4)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        committee = _Committee(mean, scale, int(folds.max()) + 1)
    members = torch.arange(committee.members)
    learns = (folds[:, None] != members).float()
    optimizer = torch.optim.AdamW(committee.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    best = torch.full((committee.members,), math.inf)
    waited = torch.zeros(committee.members)
    kept = [parameter.detach().clone() for parameter in committee.parameters()]
    for _ in range(settings.epochs):
        order = torch.randperm(len(labels), generator=generator)
        for index in order.split(settings.batch):
            scores = committee(_drop(seen[index], mean, settings.dropout, generator))
            losses = _losses(scores, labels[index]) * learns[index]
            loss = (losses.sum(0) / learns[index].sum(0).clamp(min=1)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            losses = _losses(committee(seen), labels) * (1 - learns)
        current = losses.sum(0) / (1 - learns).sum(0)
        better = current < best
        best = torch.where(better, current, best)
        waited = torch.where(better, 0, waited + 1)
        for copy, parameter in zip(kept, committee.parameters(), strict=True):
            copy[better] = parameter.detach()[better]
        if (waited >= settings.patience).all():
            break
    with torch.no_grad():
        for copy, parameter in zip(kept, committee.parameters(), strict=True):
            parameter.copy_(copy)
        unseen = committee(seen).gather(1, folds[:, None])[:, 0].sigmoid()
    return Trained(committee.merge(), unseen)


def number_folds(folds: Tensor) -> Tensor:
    """The folds that there are, numbered from 0.

    Raises:
        ValueError: there is one only.
    """
    names, numbers = torch.unique(folds, return_inverse=True)
    if len(names) < 2:
        raise ValueError("all steps are in one fold: nothing is left to judge by")
    return torch.as_tensor(numbers)


class _Committee(nn.Module):
    """MLPs of one shape on the same features, trained side by side: every parameter has a row for each."""

    def __init__(self, mean: Tensor, scale: Tensor, members: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.mean, self.scale, self.members = mean, scale, members
        first = [nn.Linear(len(mean), hidden) for _ in range(members)]
        last = [nn.Linear(hidden, 1) for _ in range(members)]
        self.inner = nn.Parameter(torch.stack([one.weight.detach() for one in first]))
        self.inner_bias = nn.Parameter(torch.stack([one.bias.detach() for one in first]))
        self.outer = nn.Parameter(torch.stack([one.weight.detach()[0] for one in last]))
        self.outer_bias = nn.Parameter(torch.stack([one.bias.detach()[0] for one in last]))

    def forward(self, seen: Seen) -> Tensor:
        """Each member's score of each step, before the sigmoid: `[steps, members]`."""
        features = seen.values if isinstance(seen, Tokens) else seen
        standard = ((features - self.mean) / self.scale).clamp(-8, 8)
        inner = nn.functional.linear(standard, self.inner.flatten(0, 1), self.inner_bias.flatten())
        each = (nn.functional.gelu(inner).unflatten(1, self.outer.shape) * self.outer).sum(-1) + self.outer_bias
        return seen.pool(each) if isinstance(seen, Tokens) else each

    def merge(self) -> StepClassifier:
        """The mean of the members, which is one MLP that is as wide as all of them."""
        merged = StepClassifier(len(self.mean), self.outer.numel())
        merged.mean.copy_(self.mean)
        merged.scale.copy_(self.scale)
        with torch.no_grad():
            merged.inner.weight.copy_(self.inner.flatten(0, 1))
            merged.inner.bias.copy_(self.inner_bias.flatten())
            merged.outer.weight.copy_(self.outer.flatten()[None] / self.members)
            merged.outer.bias.copy_(self.outer_bias.mean())
        return merged.eval()


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each member at each step: `[steps, members]`."""
    truth = labels[:, None].expand_as(scores)
    return nn.functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")


def _drop(seen: Seen, usual: Tensor, share: float, generator: torch.Generator) -> Seen:
    """A dropped feature reads as usual."""
    features = seen.values if isinstance(seen, Tokens) else seen
    kept = torch.where(torch.rand(features.shape, generator=generator) >= share, features, usual)
    return Tokens(kept, seen.lengths) if isinstance(seen, Tokens) else kept


def conformal_threshold(maxima: Sequence[float], alpha: float) -> float:
    """The threshold that at most a share `alpha` of traces that should stay silent will cross.

    Args:
        maxima: largest score of each calibration trace that should not trigger.
        alpha: allowed share of false alarms, a trace.

    Returns:
        The `ceil((n + 1)(1 - alpha))`-th smallest maximum: for exchangeable traces the chance that a new one
        lies above it is at most `alpha`. Infinite where `n` is too small to promise that.

    Source: the conformal rule on the per-trace maximum ("Maxwise", statistical early stopping, ICML 2026).
    """
    rank = math.ceil((len(maxima) + 1) * (1 - alpha))
    return sorted(maxima)[rank - 1] if rank <= len(maxima) else math.inf
