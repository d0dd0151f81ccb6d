"""One small MLP a level, its training, and its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
        return self.told(self.standard(seen))

    def each(self, features: Tensor) -> Tensor:
        """Scores before the sigmoid of each vector: `[rows, features]` to `[rows]`."""
        return self._map(self._standard(features))

    def standard(self, seen: Seen) -> Seen:
        """The same steps in standard deviations from what is usual."""
        if isinstance(seen, Tokens):
            return Tokens(self._standard(seen.values), seen.lengths)
        return self._standard(seen)

    def told(self, standard: Seen) -> Tensor:
        """`forward` on what `standard` gave."""
        if isinstance(standard, Tokens):
            return standard.pool(self._map(standard.values))
        return self._map(standard)

    def _standard(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.scale).clamp(-8, 8)

    def _map(self, standard: Tensor) -> Tensor:
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


def train_classifier(
    seen: Seen, labels: Tensor, held: tuple[Seen, Tensor], settings: TrainingSettings | None = None
) -> StepClassifier:
    """Train on some steps, and keep the epoch that is best on the held ones.

    Args:
        seen: the steps, or their tokens.
        labels: `[steps]`, 0 or 1.
        held: what is seen, and the labels, of other problems' steps, to stop by.
        settings: see there.

    Returns:
        The classifier of the epoch with the lowest loss on the held steps: its score is a probability as
        far as the base rates agree.
    """
    settings = settings or TrainingSettings()
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        features = seen.values if isinstance(seen, Tokens) else seen
        model = StepClassifier(features.shape[1])
    model.mean.copy_(features.mean(0))
    model.scale.copy_(features.std(0).clamp(min=1e-4))
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    loss_of = nn.BCEWithLogitsLoss()
    standard, unseen = model.standard(seen), model.standard(held[0])  # once, not in every epoch
    best, best_state, waited = math.inf, {k: v.clone() for k, v in model.state_dict().items()}, 0
    for _ in range(settings.epochs):
        order = torch.randperm(len(labels), generator=generator)
        for index in order.split(settings.batch):
            loss = loss_of(model.told(_drop(standard[index], settings.dropout, generator)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            current = float(loss_of(model.told(unseen), held[1]))
        if current < best:
            best, waited = current, 0
            best_state = {k: v.clone() for k, v in model.state_dict().items()}
        else:
            waited += 1
            if waited >= settings.patience:
                break
    model.load_state_dict(best_state)
    return model.eval()


def _drop(standard: Seen, share: float, generator: torch.Generator) -> Seen:
    """A dropped feature reads as usual, which is 0 here."""
    features = standard.values if isinstance(standard, Tokens) else standard
    kept = features * _kept(features.shape, share, generator)
    return Tokens(kept, standard.lengths) if isinstance(standard, Tokens) else kept


def _kept(shape: torch.Size, share: float, generator: torch.Generator) -> Tensor:
    """Which features are not dropped, to the nearest 256th of the share.

    One draw of 64 bits decides about eight: of tokens there are a million values a batch, and drawing a number for each
    took longer than learning from them.
    """
    draws = torch.empty((shape.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return (draws.view(torch.uint8)[: shape.numel()] >= round(share * 256)).view(shape)


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


def fewest_good(alpha: float) -> int | float:
    """How many traces that should stay silent `conformal_threshold` needs to promise a share `alpha`."""
    return math.ceil((1 - alpha) / alpha - 1e-9) if alpha > 0 else math.inf


def why_silent(alpha: float, good: int) -> str:
    """Why a level without a threshold never speaks, for people.

    Args:
        alpha: allowed share of false alarms, a trace.
        good: calibration traces that should not trigger.
    """
    needed = fewest_good(alpha)
    reason = f"{needed:g} needed" if good < needed else "which score as high as any step can"
    return f"never speaks at alpha {alpha:g}: {good} good traces to calibrate on, {reason}"
