"""How good scores are: without thresholds, and at one."""

from __future__ import annotations

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
