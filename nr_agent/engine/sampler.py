"""Drawing tokens: keyed by seed and position, so a draw does not depend on who else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nr_agent.engine.protocol import Sampling

_MASK = (1 << 64) - 1
_FEW = 256
"""Tokens that nearly always hold the nucleus."""


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
    point = torch.tensor([uniform(*keys[row]) for row in drawn], device=device, dtype=torch.float64)[:, None]
    likely = (logits[index] / temperature).softmax(-1)
    kept = (likely * _nucleus(likely, [sampling[row] for row in drawn])).double()
    # The point is looked up in the vocabulary's order: among tokens that are almost equally likely, the sorted order
    # changes with the last bits of the logits, which depend on who else is in the batch.
    total = kept.cumsum(-1)
    chosen = torch.searchsorted(total, point * total[:, -1:], right=True)
    # A point at the very end can land behind the last token of the nucleus.
    chosen = torch.minimum(chosen, torch.searchsorted(total, total[:, -1:].contiguous()))
    chosen.clamp_(max=logits.shape[1] - 1)  # where a row is no numbers, it is behind the vocabulary
    greedy[index] = chosen[:, 0]
    return greedy


def _nucleus(likely: Tensor, sampling: Sequence[Sampling]) -> Tensor:
    """Which tokens may be drawn, by `top_p` and `top_k`: `[rows, vocabulary]`; of equals the first in the vocabulary.

    On a CPU the largest few are looked at first: to sort a large vocabulary takes a tenth of a small model's pass.
    """
    vocabulary = likely.shape[1]
    if all(how.top_p >= 1 and not how.top_k for how in sampling):
        return torch.ones_like(likely, dtype=torch.bool)
    top_p = torch.tensor([how.top_p for how in sampling], device=likely.device)[:, None]
    top_k = torch.tensor([how.top_k or vocabulary for how in sampling], device=likely.device)[:, None]
    if likely.device.type != "cpu" or vocabulary <= _FEW:
        return _above(likely, *_least(likely.sort(dim=-1, descending=True).values, top_p, top_k)[:2])
    least, count, whole = _least(likely.topk(_FEW).values, top_p, top_k)
    wide = (~whole & (top_k > _FEW))[:, 0].nonzero()[:, 0]
    if len(wide):
        ordered = likely[wide].sort(dim=-1, descending=True).values
        least[wide], count[wide], _ = _least(ordered, top_p[wide], top_k[wide])
    return _above(likely, least, count)


def _least(ordered: Tensor, top_p: Tensor, top_k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The least likely token's probability in the nucleus, how many it holds, and whether it ends in what is given."""
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(ordered.shape[1], device=ordered.device)
    # The token that crosses `top_p` belongs to the nucleus, as in Holtzman et al. 2020.
    count = (((before < top_p) | (rank == 0)) & (rank < top_k)).sum(-1, keepdim=True)
    return ordered.gather(-1, count - 1), count, before[:, -1:] >= top_p


def _above(likely: Tensor, least: Tensor, count: Tensor) -> Tensor:
    """So many tokens a row, the largest; of those that are as likely as the last one the first."""
    equal = likely == least
    within = likely >= least
    # To ask whether any are would hold up an accelerator.
    if within.device.type != "cpu" or bool((within.sum(-1, keepdim=True) != count).any()):
        within &= ~equal | (equal.cumsum(-1) <= count - (within & ~equal).sum(-1, keepdim=True))
    return within


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
