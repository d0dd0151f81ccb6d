"""The detector card: how good a detector is on problems that it never saw, next to what must lose to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from nr_agent.detection.classifier import StepClassifier, conformal_threshold, train_classifier
from nr_agent.detection.features import FEATURE_FAMILIES, FeatureFamily, feature_names
from nr_agent.detection.probes import Surroundings, train_linear
from nr_agent.detection.quality import at_threshold, full_quality, quiet_maxima, ranking_quality
from nr_agent.detection.traces import Traced
from nr_agent.events import Level


@dataclass
class Part:
    """The steps of one split.

    Attributes:
        features: `[steps, features]`, all families.
        labels: `[steps]` float, 0 or 1.
        traces: `[steps]`, number of the trace that each belongs to.
        extents: `[steps, 3]`: the step's number in its trace, its tokens, and its position.
    """

    features: Tensor
    labels: Tensor
    traces: Tensor
    extents: Tensor


@dataclass
class LevelData:
    """Features and labels of a level, collected step by step."""

    channels: int
    _rows: list[Tensor] = field(default_factory=list)
    _marks: list[tuple[float, str, int, int, int]] = field(default_factory=list)
    _parts: dict[str, Part] = field(default_factory=dict)

    def add(self, features: Tensor, truth: bool, split: str, trace: int, place: int, tokens: int) -> None:
        """Take in one step."""
        self._rows.append(features)
        self._marks.append((float(truth), split, trace, place, tokens))

    def close(self, traces: Sequence[Traced]) -> None:
        """No more steps come: make the splits."""
        features = torch.stack(self._rows)
        for split in {mark[1] for mark in self._marks}:
            chosen = [i for i, mark in enumerate(self._marks) if mark[1] == split]
            marks = [self._marks[i] for i in chosen]
            self._parts[split] = Part(
                features[chosen],
                torch.tensor([mark[0] for mark in marks]),
                torch.tensor([mark[2] for mark in marks]),
                torch.tensor([[m[3], m[4], traces[m[2]].steps[m[3]].start] for m in marks]).float(),
            )
        self._rows.clear()

    def split(self, name: str) -> Part:
        """The steps of a split."""
        return self._parts[name]

    def columns(self, families: Sequence[FeatureFamily]) -> Tensor:
        """Where the features of some families stand."""
        start, found = 0, {}
        addresses = ["x"] * self.channels
        for family in FEATURE_FAMILIES:
            width = len(feature_names([family], addresses))
            found[family] = torch.arange(start, start + width)
            start += width
        return torch.cat([found[family] for family in families])


def evaluate_level(
    level: Level,
    data: LevelData,
    random_data: LevelData,
    classifier: StepClassifier,
    families: Sequence[FeatureFamily],
    threshold: float,
    trials: dict[str, StepClassifier],
    around: Surroundings,
    alpha: float,
) -> dict[str, Any]:
    """A level's row of the card, all of it measured on the test problems.

    Args:
        level: the level.
        data: features of the chosen channels.
        random_data: features of as many random ones.
        classifier: the one that ships.
        families: what it sees.
        threshold: the calibrated threshold.
        trials: a classifier for every combination of families that was tried.
        around: what the probes see.
        alpha: share of good traces that may be disturbed: each control gets its own threshold by it.
    """
    test = data.split("test")
    row = full_quality(level, classifier.score(test.features[:, data.columns(families)]), test, threshold)
    row["families"] = list(families)
    row["threshold"] = threshold if threshold < 1 else None
    row["tried"] = {
        name: ranking_quality(trial.score(test.features[:, data.columns(_families(name))]), test.labels)
        for name, trial in trials.items()
    }
    row["controls"] = _controls(level, data, random_data, families, trials["confidence"], around, alpha)
    return row


class _Scorer(Protocol):
    def score(self, features: Tensor) -> Tensor: ...


def _controls(
    level: Level,
    data: LevelData,
    random_data: LevelData,
    families: Sequence[FeatureFamily],
    confidence: StepClassifier,
    around: Surroundings,
    alpha: float,
) -> dict[str, Any]:
    """The same question to what should not answer it as well: other channels, false labels, place, text, probes.

    Each has its own threshold, calibrated as the detector's, so that the recalls are at the same promise.
    """
    columns = data.columns(families)
    train, held = data.split("train"), data.split("held")
    shuffle = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(1))
    rows = {}

    def add(name: str, scorer: _Scorer, of: Callable[[str], Tensor]) -> None:
        rows[name] = _control(level, data, scorer, of, alpha)

    def chosen(split: str) -> Tensor:
        return data.split(split).features[:, columns]

    def blind(split: str) -> Tensor:
        return random_data.split(split).features[:, columns]

    def extents(split: str) -> Tensor:
        return data.split(split).extents

    def sure(split: str) -> Tensor:
        return data.split(split).features[:, data.columns(["confidence"])]

    add("random_channels", train_classifier(blind("train"), train.labels, (blind("held"), held.labels)), blind)
    shuffled = train_classifier(chosen("train"), train.labels[shuffle], (chosen("held"), held.labels))
    add("shuffled_labels", shuffled, chosen)
    placed = train_classifier(extents("train"), train.labels, (extents("held"), held.labels))
    add("position_and_length", placed, extents)
    add("confidence", confidence, sure)
    for name in around.features:

        def seen(split: str, name: str = name) -> Tensor:
            return around.of(name, data.split(split))

        add(name, train_linear(seen("train"), train.labels, (seen("held"), held.labels)), seen)
    return rows


def _control(
    level: Level, data: LevelData, scorer: _Scorer, of: Callable[[str], Tensor], alpha: float
) -> dict[str, Any]:
    quiet, test = data.split("calibration"), data.split("test")
    threshold = conformal_threshold(quiet_maxima(level, scorer.score(of("calibration")), quiet), alpha)
    scores = scorer.score(of("test"))
    return ranking_quality(scores, test.labels) | {"recall": at_threshold(level, scores, test, threshold)["recall"]}


def _families(name: str) -> list[FeatureFamily]:
    return [family for family in FEATURE_FAMILIES if family in name.split("+")]
