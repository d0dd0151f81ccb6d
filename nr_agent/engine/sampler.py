"""Drawing tokens: keyed by seed and position, so a draw does not depend on who else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nr_agent.engine.protocol import Sampling

_MASK = (1 << 64) - 1


def draw(
    logits: Tensor,
    sampling: Sequence[Sampling],
    keys: Sequence[tuple[int, int]],
    written: Sequence[Sequence[int]] = (),
) -> Tensor:
    """Draw a token a row.

    Args:
        logits: `[rows, vocabulary]`, float32.
        sampling: how to draw, a row each.
        keys: seed and position of each row's token.
        written: the tokens of each row's sequence; only read where there is a repetition penalty,
            or something to avoid.

    Returns:
        `[rows]` int64 token ids.
    """
    logits = _avoid(_suppress(_penalise(logits, sampling, written), sampling), sampling, written)
    greedy = logits.argmax(-1)
    drawn = [row for row, how in enumerate(sampling) if how.temperature > 0]
    if not drawn:
        return greedy
    index = torch.tensor(drawn, device=logits.device)
    device = logits.device
    temperature = torch.tensor([sampling[row].temperature for row in drawn], device=device)[:, None]
    top_p = torch.tensor([sampling[row].top_p for row in drawn], device=device)[:, None]
    top_k = torch.tensor([sampling[row].top_k or logits.shape[1] for row in drawn], device=device)[:, None]
    point = torch.tensor([uniform(*keys[row]) for row in drawn], device=device, dtype=torch.float64)[:, None]
    ordered, tokens = (logits[index] / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(logits.shape[1], device=device)
    # The token that crosses `top_p` belongs to the nucleus, as in Holtzman et al. 2020.
    ordered = ordered.masked_fill(((before >= top_p) & (rank > 0)) | (rank >= top_k), 0).double()
    # The point is looked up in the vocabulary's order: among tokens that are almost equally likely, the sorted order
    # changes with the last bits of the logits, which depend on who else is in the batch.
    kept = torch.zeros_like(ordered).scatter_(-1, tokens, ordered)
    total = kept.cumsum(-1)
    chosen = torch.searchsorted(total, point * total[:, -1:], right=True)
    # A point at the very end can land behind the last token of the nucleus.
    chosen = torch.minimum(chosen, ((kept > 0) * rank).amax(-1, keepdim=True))
    greedy[index] = chosen[:, 0]
    return greedy


def confidence(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """How sure the model was of what it wrote, at temperature 1.

    Args:
        logits: `[rows, vocabulary]`, float32.
        tokens: `[rows]`.

    Returns:
        Log-probability of the tokens, and entropy of the distributions in nats; `[rows]` each.
    """
    logp = logits.log_softmax(-1)
    entropy = -(logp.exp() * logp).nan_to_num(0.0).sum(-1)
    return logp.gather(-1, tokens[:, None])[:, 0], entropy


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for a seed and a position (splitmix64, Steele et al. 2014)."""
    state = (seed * 0x9E3779B97F4A7C15 + position * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7) & _MASK
    for _ in range(2):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        state = mixed ^ (mixed >> 31)
    return (state >> 11) / (1 << 53)


def _penalise(logits: Tensor, sampling: Sequence[Sampling], written: Sequence[Sequence[int]]) -> Tensor:
    rows = [row for row, how in enumerate(sampling) if how.repetition_penalty != 1]
    if not rows:
        return logits
    logits = logits.clone()
    for row in rows:
        seen = torch.tensor(sorted(set(written[row])), device=logits.device)
        values, penalty = logits[row, seen], sampling[row].repetition_penalty
        logits[row, seen] = torch.where(values < 0, values * penalty, values / penalty)
    return logits


def _suppress(logits: Tensor, sampling: Sequence[Sampling]) -> Tensor:
    rows = [row for row, how in enumerate(sampling) if how.suppress]
    if not rows:
        return logits
    logits = logits.clone()
    for row in rows:
        logits[row, list(sampling[row].suppress)] = -torch.inf
    return logits


def _avoid(logits: Tensor, sampling: Sequence[Sampling], written: Sequence[Sequence[int]]) -> Tensor:
    last = [
        (row, piece[-1])
        for row, how in enumerate(sampling)
        for piece in how.avoid
        if tuple(written[row][len(written[row]) - len(piece) + 1 :]) == piece[:-1]
    ]
    if not last:
        return logits
    logits = logits.clone()
    rows, tokens = zip(*last, strict=True)
    logits[list(rows), list(tokens)] = -torch.inf
    return logits
