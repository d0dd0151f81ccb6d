"""How good scores are: without thresholds, and at one."""

from __future__ import annotations

from collections.abc import Sequence

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
