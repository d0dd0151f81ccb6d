"""A level's figures on problems that were never seen: how well scores rank, and what happens at the threshold."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nr_agent.detection.intervals import rate_interval, wilson
from nr_agent.detection.metrics import (
    auroc,
    average_precision,
    expected_calibration_error,
    first_error_f1,
    fpr_at_recall,
    reliability,
)
from nr_agent.events import Level

if TYPE_CHECKING:
    from nr_agent.detection.card import Part

_THRESHOLDS = 101
"""Quantiles of the held scores that are tried as thresholds."""


def ranking_quality(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """How well scores put failing steps first, without a threshold."""
    return {
        "n": len(labels),
        "positives": int(labels.sum()),
        "auroc": round(auroc(scores, labels), 4),
        "average_precision": round(average_precision(scores, labels), 4),
    }


def full_quality(level: Level, scores: Tensor, part: Part, threshold: float) -> dict[str, Any]:
    """Everything that is said of the detector that ships."""
    bins = reliability(scores, part.labels)
    return {
        **ranking_quality(scores, part.labels),
        "fpr_at_95_recall": round(fpr_at_recall(scores, part.labels), 4),
        "ece": round(expected_calibration_error(bins), 4),
        "reliability": [asdict(one) for one in bins],
        **at_threshold(level, scores, part, threshold),
        "false_alarms": false_alarms(scores, part, threshold),
        "first_error": first_failure(scores, part, threshold),
        "lead": lead(scores, part, threshold),
    }


def at_threshold(level: Level, scores: Tensor, part: Part, threshold: float) -> dict[str, Any]:
    """Recall of failing steps, and the share of good traces with any alarm, with its 95% interval.

    Good traces are those without the failure; for overthinking, all of them up to where it begins.
    """
    fired = scores > threshold
    failing = part.labels > 0.5
    good = set(part.traces[~failing].tolist())
    if level != "instance":
        good -= set(part.traces[failing].tolist())
    disturbed = set(part.traces[fired & ~failing].tolist()) & good
    return {
        "recall": round(float(fired[failing].float().mean()), 4) if failing.any() else float("nan"),
        "false_alarm_traces": round(len(disturbed) / max(1, len(good)), 4),
        "false_alarm_traces_interval": _rounded(wilson(len(disturbed), len(good))),
        "good_traces": len(good),
    }


def quiet_maxima(level: Level, scores: Tensor, part: Part) -> list[float]:
    """Largest score of each trace over the steps at which the level must stay silent, for the conformal rule.

    For slips and circling these are the traces without any; for overthinking, every trace's steps before the
    answer was there.
    """
    maxima: dict[int, float] = {}
    spoiled: set[int] = set()
    for score, truth, trace in zip(scores.tolist(), part.labels.tolist(), part.traces.tolist(), strict=True):
        if truth > 0.5:
            spoiled.add(trace)
        else:
            maxima[trace] = max(maxima.get(trace, 0.0), score)
    return [value for trace, value in maxima.items() if level == "instance" or trace not in spoiled]


def false_alarms(scores: Tensor, part: Part, threshold: float) -> dict[str, Any]:
    """Alarms at steps without the failure: a thousand tokens of thinking and a trace, with 95% intervals."""
    traces = _by_trace(scores, part, threshold)
    alarms = [sum(step.fired and not step.failing for step in steps) for steps in traces]
    tokens = [sum(step.tokens for step in steps) for steps in traces]
    low, high = rate_interval(alarms, tokens)
    return {
        "alarms": sum(alarms),
        "tokens": sum(tokens),
        "per_1000_tokens": round(1000 * sum(alarms) / max(1, sum(tokens)), 4),
        "per_1000_tokens_interval": _rounded((1000 * low, 1000 * high)),
        "per_trace": round(sum(alarms) / max(1, len(traces)), 4),
        "per_trace_interval": _rounded(rate_interval(alarms, [1.0] * len(traces))),
    }


def first_failure(scores: Tensor, part: Part, threshold: float) -> dict[str, float]:
    """ProcessBench's measure on the model's own traces: is the first alarm at the first failing step?"""
    traces = _by_trace(scores, part, threshold)
    predicted = [next((step.place for step in steps if step.fired), -1) for steps in traces]
    labels = [next((step.place for step in steps if step.failing), -1) for steps in traces]
    return {name: round(value, 4) for name, value in first_error_f1(predicted, labels).items()}


def first_failure_f1(held: tuple[Tensor, Part], test: tuple[Tensor, Part]) -> float:
    """`first_failure`'s F1 at the threshold that is best on held problems: what a score could do at this task.

    A calibrated threshold keeps alarms rare, and so finds fewer first failures than another one would.
    """
    scores, part = held
    known = torch.quantile(scores, torch.linspace(0, 1, _THRESHOLDS)).unique().tolist()
    best = max(known, key=lambda threshold: _number(first_failure(scores, part, threshold)["f1"]))
    return first_failure(*test, best)["f1"]


def lead(scores: Tensor, part: Part, threshold: float) -> dict[str, Any]:
    """How soon after a failure begins the alarm comes, and how much thinking is still ahead then; medians.

    Over the failing traces in which an alarm comes at or after the first failing step.
    """
    delays, ahead, failing = [], [], 0
    for steps in _by_trace(scores, part, threshold):
        begin = next((i for i, step in enumerate(steps) if step.failing), None)
        if begin is None:
            continue
        failing += 1
        alarm = next((i for i in range(begin, len(steps)) if steps[i].fired), None)
        if alarm is not None:
            delays.append((alarm - begin, sum(step.tokens for step in steps[begin + 1 : alarm + 1])))
            ahead.append((len(steps) - 1 - alarm, sum(step.tokens for step in steps[alarm + 1 :])))
    return {
        "failing_traces": failing,
        "found": len(delays),
        "delay_steps": _median([steps for steps, _ in delays]),
        "delay_tokens": _median([tokens for _, tokens in delays]),
        "ahead_steps": _median([steps for steps, _ in ahead]),
        "ahead_tokens": _median([tokens for _, tokens in ahead]),
    }


@dataclass(frozen=True)
class _Step:
    place: int
    tokens: int
    failing: bool
    fired: bool


def _by_trace(scores: Tensor, part: Part, threshold: float) -> list[list[_Step]]:
    """The labelled steps of each trace, in order."""
    traces: dict[int, list[_Step]] = defaultdict(list)
    rows = zip(scores.tolist(), part.labels.tolist(), part.traces.tolist(), part.extents.tolist(), strict=True)
    for score, label, trace, extent in rows:
        traces[trace].append(_Step(int(extent[0]), int(extent[1]), label > 0.5, score > threshold))
    return [sorted(steps, key=lambda step: step.place) for steps in traces.values()]


def _number(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _median(values: list[int]) -> float | None:
    return median(values) if values else None


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(value, 4) for value in interval]
