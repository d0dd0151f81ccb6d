"""The detector card: how good a detector is on problems that it never saw, next to what must lose to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from nr_agent.detection.classifier import StepClassifier, conformal_threshold, train_classifier
from nr_agent.detection.features import FEATURE_FAMILIES, StepSignal, step_features, token_features
from nr_agent.detection.margins import TraceDraws, middle
from nr_agent.detection.metrics import average_precision
from nr_agent.detection.probes import Surroundings, train_linear
from nr_agent.detection.quality import at_threshold, first_failure_f1, full_quality, quiet_maxima, ranking_quality
from nr_agent.detection.traces import Traced
from nr_agent.detection.views import Seen, Tokens, View
from nr_agent.events import Level


@dataclass
class Part:
    """The steps of one split.

    Attributes:
        features: `[steps, features]`, all families.
        tokens: the same steps' tokens, all families.
        labels: `[steps]` float, 0 or 1.
        traces: `[steps]`, number of the trace that each belongs to.
        extents: `[steps, 3]`: the step's number in its trace, its tokens, and its position.
    """

    features: Tensor
    tokens: Tokens
    labels: Tensor
    traces: Tensor
    extents: Tensor


@dataclass
class LevelData:
    """Features and labels of a level, collected step by step."""

    channels: int
    _rows: list[Tensor] = field(default_factory=list)
    _tokens: list[Tensor] = field(default_factory=list)
    _marks: list[tuple[float, str, int, int, int]] = field(default_factory=list)
    _parts: dict[str, Part] = field(default_factory=dict)

    def add(self, signal: StepSignal, truth: bool, split: str, trace: int, place: int, tokens: int) -> None:
        """Take in one step."""
        self._rows.append(step_features(signal, FEATURE_FAMILIES))
        self._tokens.append(token_features(signal, FEATURE_FAMILIES))
        self._marks.append((float(truth), split, trace, place, tokens))

    def close(self, traces: Sequence[Traced]) -> None:
        """No more steps come: make the splits."""
        features = torch.stack(self._rows)
        for split in {mark[1] for mark in self._marks}:
            chosen = [i for i, mark in enumerate(self._marks) if mark[1] == split]
            marks = [self._marks[i] for i in chosen]
            self._parts[split] = Part(
                features[chosen],
                Tokens.of([self._tokens[i] for i in chosen]),
                torch.tensor([mark[0] for mark in marks]),
                torch.tensor([mark[2] for mark in marks]),
                torch.tensor([[m[3], m[4], traces[m[2]].steps[m[3]].start] for m in marks]).float(),
            )
        self._rows.clear()
        self._tokens.clear()

    def split(self, name: str) -> Part:
        """The steps of a split."""
        return self._parts[name]

    def seen(self, split: str, view: View) -> Seen:
        """What a classifier is given of the steps of a split."""
        part, columns = self._parts[split], self._columns(view)
        return part.tokens.columns(columns) if view.unit == "token" else part.features[:, columns]

    def _columns(self, view: View) -> Tensor:
        """Where the features of a view stand among those of all families."""
        start, found = 0, {}
        addresses = ["x"] * self.channels
        for family in FEATURE_FAMILIES:
            width = len(View((family,), view.unit).names(addresses))
            found[family] = torch.arange(start, start + width)
            start += width
        return torch.cat([found[family] for family in view.families])


def evaluate_level(
    level: Level,
    data: LevelData,
    random_data: LevelData,
    view: View,
    threshold: float,
    trials: dict[View, StepClassifier],
    around: Surroundings,
    alpha: float,
) -> dict[str, Any]:
    """A level's row of the card, all of it measured on the test problems.

    Args:
        level: the level.
        data: features of the chosen channels.
        random_data: features of as many random ones.
        view: what the one that ships is given.
        threshold: the calibrated threshold.
        trials: a classifier for every view that was tried.
        around: what the probes see.
        alpha: share of good traces that may be disturbed: each control gets its own threshold by it.
    """
    test = data.split("test")
    row = full_quality(level, trials[view].score(data.seen("test", view)), test, threshold)
    row["first_error_f1"] = first_failure_f1(
        (trials[view].score(data.seen("held", view)), data.split("held")),
        (trials[view].score(data.seen("test", view)), test),
    )
    row["families"] = list(view.families)
    row["unit"] = view.unit
    row["threshold"] = threshold if threshold < 1 else None
    row["tried"] = {
        str(tried): ranking_quality(trial.score(data.seen("test", tried)), test.labels)
        for tried, trial in trials.items()
    }
    drawn = TraceDraws(test.labels, test.traces)
    ours = drawn.auroc(trials[view].score(data.seen("test", view)))
    row["auroc_interval"] = middle(ours)
    row["controls"] = {}
    for name, (scorer, of) in _controls(data, random_data, view, trials, around).items():
        row["controls"][name] = _control(level, data, scorer, of, alpha) | {
            "ahead_interval": middle(ours - drawn.auroc(scorer.score(of("test"))))
        }
    return row


class _Scorer(Protocol):
    def score(self, seen: Any) -> Tensor: ...


_Of = Callable[[str], Seen]


def _controls(
    data: LevelData,
    random_data: LevelData,
    view: View,
    trials: dict[View, StepClassifier],
    around: Surroundings,
) -> dict[str, tuple[_Scorer, _Of]]:
    """The same question to what should not answer it as well: other channels, false labels, place, text, probes.

    What may be seen in several ways, random channels and confidence, is given the best of them on held problems, as
    the detector is.

    Returns:
        By name: what scores, and what it is given of a split.
    """
    train, held = data.split("train"), data.split("held")
    generator = torch.Generator().manual_seed(1)
    order, held_order = (torch.randperm(len(part.labels), generator=generator) for part in (train, held))

    def best(seen: Callable[[str, View], Seen], of: dict[View, StepClassifier]) -> tuple[_Scorer, _Of]:
        top = max(of, key=lambda one: average_precision(of[one].score(seen("held", one)), held.labels))
        return of[top], lambda split: seen(split, top)

    def learned(of: _Of, shuffled: bool = False) -> tuple[_Scorer, _Of]:
        known = held.labels[held_order] if shuffled else held.labels
        labels = train.labels[order] if shuffled else train.labels
        return train_classifier(of("train"), labels, (of("held"), known)), of

    blind = {
        one: train_classifier(
            random_data.seen("train", one), train.labels, (random_data.seen("held", one), held.labels)
        )
        for one in trials
    }
    alone = {one: trial for one, trial in trials.items() if one.families == ("confidence",)}
    controls: dict[str, tuple[_Scorer, _Of]] = {
        "random_channels": best(random_data.seen, blind),
        "shuffled_labels": learned(lambda split: data.seen(split, view), shuffled=True),
        "position_and_length": learned(lambda split: data.split(split).extents),
        "confidence": best(data.seen, alone),
    }
    for name in around.features:

        def seen(split: str, name: str = name) -> Tensor:
            return around.of(name, data.split(split))

        controls[name] = train_linear(seen("train"), train.labels, (seen("held"), held.labels)), seen
    return controls


def _control(level: Level, data: LevelData, scorer: _Scorer, of: _Of, alpha: float) -> dict[str, Any]:
    """A control's row, at its own threshold, calibrated as the detector's: the recalls are at the same promise."""
    quiet, held, test = (data.split(name) for name in ("calibration", "held", "test"))
    threshold = conformal_threshold(quiet_maxima(level, scorer.score(of("calibration")), quiet), alpha)
    scores = scorer.score(of("test"))
    return ranking_quality(scores, test.labels) | {
        "recall": at_threshold(level, scores, test, threshold)["recall"],
        "first_error_f1": first_failure_f1((scorer.score(of("held")), held), (scores, test)),
    }
