"""The detector card: how good a detector is on problems that it never saw, next to what must lose to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nr_agent.detection.classifier import StepClassifier, train_classifier
from nr_agent.detection.features import FEATURE_FAMILIES, FeatureFamily, feature_names
from nr_agent.detection.metrics import auroc, average_precision
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
    """
    test = data.split("test")
    columns = data.columns(families)
    scores = classifier.score(test.features[:, columns])
    row = _quality(scores, test.labels)
    row |= _at_threshold(level, scores, test, threshold)
    row["families"] = list(families)
    row["threshold"] = threshold if threshold < 1 else None
    row["tried"] = {
        name: _quality(trial.score(test.features[:, data.columns(_families(name))]), test.labels)
        for name, trial in trials.items()
    }
    row["controls"] = _controls(level, data, random_data, families, threshold)
    row["controls"]["confidence"] = row["tried"]["confidence"] | {"recall": None}
    return row


def write_card(out: Path, manifest: Any, card: dict[str, Any]) -> None:
    """Write `card.json` and `card.md`."""
    whole = {
        "detector": manifest.id,
        "model": manifest.model,
        "fingerprint": manifest.fingerprint,
        "training": manifest.training,
        **card,
    }
    (out / "card.json").write_text(json.dumps(whole, indent=1, allow_nan=True) + "\n")
    lines = [
        f"# Detector {manifest.id}",
        "",
        f"Fitted on {manifest.model} (fingerprint {manifest.fingerprint}), "
        f"{manifest.training['traces']} traces of its own, split by problem; all figures are of the test problems.",
        "",
        "| level | sees | steps | failing | AUROC | AP | recall | good traces disturbed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for level, row in card["levels"].items():
        lines.append(
            f"| {level} | {' + '.join(row['families'])} | {row['n']} | {row['positives']} | {row['auroc']:.3f} | "
            f"{row['average_precision']:.3f} | {row['recall']:.2f} | {row['false_alarm_traces']:.1%} |"
        )
    lines += ["", "What else was tried, and what must lose (AUROC / AP):", ""]
    for level, row in card["levels"].items():
        every = row["tried"] | {f"control: {name}": value for name, value in row["controls"].items()}
        lines.append(
            f"**{level}**: "
            + "; ".join(f"{n} {v['auroc']:.3f} / {v['average_precision']:.3f}" for n, v in every.items())
        )
        lines.append("")
    lines.append(
        "Labels: slips are wrong equations and wrong counts that can be checked; circling is a step whose results "
        "were all there before the answer was; overthinking begins where trial answers equal the final answer for good."
    )
    (out / "card.md").write_text("\n".join(lines) + "\n")


def _families(name: str) -> list[FeatureFamily]:
    return [family for family in FEATURE_FAMILIES if family in name.split("+")]


def _quality(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    return {
        "n": len(labels),
        "positives": int(labels.sum()),
        "auroc": round(auroc(scores, labels), 4),
        "average_precision": round(average_precision(scores, labels), 4),
    }


def _at_threshold(level: Level, scores: Tensor, part: Part, threshold: float) -> dict[str, Any]:
    fired = scores > threshold
    failing = part.labels > 0.5
    wrong = fired & ~failing
    good = set(part.traces[~failing].tolist())
    if level != "instance":
        good -= set(part.traces[failing].tolist())
    disturbed = set(part.traces[wrong].tolist()) & good
    return {
        "recall": round(float(fired[failing].float().mean()), 4) if failing.any() else float("nan"),
        "false_alarm_traces": round(len(disturbed) / max(1, len(good)), 4),
        "good_traces": len(good),
    }


def _controls(
    level: Level, data: LevelData, random_data: LevelData, families: Sequence[FeatureFamily], threshold: float
) -> dict[str, Any]:
    """The same training on what should not work as well: other channels, false labels, place and length."""
    columns = data.columns(families)
    train, held, test = (data.split(name) for name in ("train", "held", "test"))
    shuffle = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(1))
    blind = [random_data.split(name) for name in ("train", "held", "test")]
    sets = {
        "random_channels": [part.features[:, columns] for part in blind],
        "shuffled_labels": [part.features[:, columns] for part in (train, held, test)],
        "position_and_length": [part.extents for part in (train, held, test)],
    }
    rows = {}
    for name, (known, watched, unseen) in sets.items():
        labels = train.labels[shuffle] if name == "shuffled_labels" else train.labels
        trained = train_classifier(known, labels, (watched, held.labels))
        scores = trained.score(unseen)
        rows[name] = _quality(scores, test.labels) | {"recall": _at_threshold(level, scores, test, threshold)["recall"]}
    return rows
