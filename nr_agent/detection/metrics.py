"""How good scores are: without thresholds, and at one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half. NaN without both."""
    positives, negatives = int((labels > 0.5).sum()), int((labels <= 0.5).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    # Mean rank of each distinct score, from 1.
    ranks = counts.cumsum(0).double() - (counts.double() - 1) / 2
    total = ranks[inverse][labels > 0.5].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Area under the precision-recall curve as the mean precision at each positive. NaN without positives."""
    order = scores.argsort(descending=True, stable=True)
    hits = labels[order] > 0.5
    if not hits.any():
        return float("nan")
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def fpr_at_recall(scores: Tensor, labels: Tensor, recall: float = 0.95) -> float:
    """Share of negatives at or above the highest threshold that finds this share of the positives. NaN without both."""
    positives, negatives = scores[labels > 0.5], scores[labels <= 0.5]
    if not len(positives) or not len(negatives):
        return float("nan")
    needed = math.ceil(recall * len(positives))
    threshold = positives.sort(descending=True).values[needed - 1]
    return float((negatives >= threshold).float().mean())


@dataclass(frozen=True)
class Bin:
    """Steps whose scores lie between two values: how many, their mean score, and the share that fails."""

    low: float
    high: float
    n: int
    score: float
    share: float


def reliability(scores: Tensor, labels: Tensor, bins: int = 10) -> list[Bin]:
    """The steps in bins of equal width by score; empty bins are left out."""
    place = (scores * bins).long().clamp(0, bins - 1)
    made = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            share, score = float(labels[inside].float().mean()), float(scores[inside].mean())
            made.append(Bin(number / bins, (number + 1) / bins, int(inside.sum()), round(score, 4), round(share, 4)))
    return made


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance between score and share of failures, weighted by steps (Naeini et al. 2015). NaN without bins."""
    total = sum(one.n for one in bins)
    return sum(one.n * abs(one.score - one.share) for one in bins) / total if total else float("nan")


def first_error_f1(predicted: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """ProcessBench's measure of finding the first wrong step.

    Args:
        predicted: index of the first step that is said to be wrong, -1 for none.
        labels: index of the first wrong step, -1 where none is.

    Returns:
        `error`: share of the wrong texts whose first wrong step was named exactly; `correct`: share of the sound
        texts that were left alone; `f1`: their harmonic mean. NaN where there is no such text.

    Source: arXiv 2412.06559.
    """
    pairs = list(zip(predicted, labels, strict=True))
    wrong = [said == label for said, label in pairs if label >= 0]
    sound = [said < 0 for said, label in pairs if label < 0]
    if not wrong or not sound:
        return {"error": _share(wrong), "correct": _share(sound), "f1": float("nan")}
    error, correct = _share(wrong), _share(sound)
    return {
        "error": error,
        "correct": correct,
        "f1": 2 * error * correct / (error + correct) if error + correct else 0.0,
    }


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")
