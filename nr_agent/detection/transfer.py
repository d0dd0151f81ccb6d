"""What a detector has learned beyond what it was fitted on: other families of problems, and errors put in by hand."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nr_agent.detection.card import LevelData
from nr_agent.detection.classifier import StepClassifier, train_classifier
from nr_agent.detection.collect import Reader, as_segment, reader
from nr_agent.detection.detector import LevelDetector, NeuronDetector, align
from nr_agent.detection.features import StepSignal, tail
from nr_agent.detection.labels import StepLabels, slip
from nr_agent.detection.metrics import auroc, average_precision
from nr_agent.detection.traces import Traced
from nr_agent.detection.views import Seen, View, join

_RESULT = re.compile(r"(?<==)(\s*)(-?\d+)(?!\d)")
_SPOILED = 250
"""Most steps a split that are spoiled: each takes a pass of its own."""
_FEWEST = 5
"""Failing steps that a side of a comparison needs; with fewer it is left empty."""


def between_families(data: LevelData, view: View, traces: Sequence[Traced]) -> dict[str, dict[str, float | None]]:
    """AUROC on each family of problems of a detector that was fitted on each other.

    Returns:
        `{fitted on: {tested on: AUROC}}`; None where a side has too few failing or sound steps to say.
    """
    tasks = [traced.problem.task or "" for traced in traces]
    names = sorted(set(tasks))
    parts = {split: _by_task(data, split, view, tasks) for split in ("train", "held", "test")}
    table: dict[str, dict[str, float | None]] = {}
    for source in names:
        known, held = parts["train"].get(source), parts["held"].get(source)
        table[source] = dict.fromkeys(names)
        if known is None or held is None or not _both(known[1]):
            continue
        classifier = train_classifier(known[0], known[1], held)
        for target in names:
            unseen = parts["test"].get(target)
            if unseen is not None and _both(unseen[1]):
                table[source][target] = round(auroc(classifier.score(unseen[0]), unseen[1]), 4)
    return table


def natural_and_injected(
    engine: Any,
    detector: NeuronDetector,
    classifier: StepClassifier,
    data: LevelData,
    traces: Sequence[Traced],
    labelled: Sequence[Sequence[StepLabels]],
    splits: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Slips that the model made, against slips that were written into its sound steps.

    Text that a model did not write reads differently, whatever it says: a detector that is fitted on injected errors
    may know the hand that put them in. Sound steps are the same on both sides.

    Returns:
        `{"natural to injected": {"auroc", "average_precision", "n", "positives"}, ...}`, all four ways.
    """
    level = next(one for one in detector.levels if one.settings.level == "intra_step")
    view = level.settings.view
    natural = {name: (data.seen(name, view), data.split(name).labels) for name in ("train", "held", "test")}
    spoiled = _spoil_traces(engine, detector, level, traces, labelled, splits, seed)
    injected = {name: _replace_positives(natural[name], spoiled.get(name)) for name in natural}
    if any(not _both(labels) for _, labels in injected.values()):
        return {}
    other = train_classifier(*injected["train"], injected["held"])
    ways = (
        ("natural to natural", classifier, natural),
        ("natural to injected", classifier, injected),
        ("injected to natural", other, natural),
        ("injected to injected", other, injected),
    )
    return {name: _measure(trained, sets["test"]) for name, trained, sets in ways}


def spoil(text: str, rng: random.Random) -> str | None:
    """A step with one wrong result in an equation; None where it holds none that can be spoiled."""
    places = list(_RESULT.finditer(text))
    rng.shuffle(places)
    for place in places:
        off = rng.choice((-100, -10, -2, -1, 1, 2, 10, 100))
        wrong = f"{text[: place.start(2)]}{int(place[2]) + off}{text[place.end(2) :]}"
        if slip(wrong) is not None:
            return wrong
    return None


def _spoil_traces(
    engine: Any,
    detector: NeuronDetector,
    level: LevelDetector,
    traces: Sequence[Traced],
    labelled: Sequence[Sequence[StepLabels]],
    splits: Sequence[str],
    seed: int,
) -> dict[str, Seen]:
    """One spoiled step a trace, by split."""
    rng = random.Random(seed)
    found: dict[str, list[StepSignal]] = {}
    with engine.quiet() as model, reader(model, detector.channels) as read:
        for traced, labels, split in zip(traces, labelled, splits, strict=True):
            if split == "calibration" or len(found.get(split, ())) == _SPOILED:
                continue
            sound = [i for i, label in enumerate(labels) if label.intra_step is False]
            rng.shuffle(sound)
            for number in sound:
                wrong = spoil(traced.steps[number].text, rng)
                if wrong is not None:
                    signal = _last_signal(read, detector, level, _cut(traced, number, wrong, engine.codec))
                    found.setdefault(split, []).append(signal)
                    break
    return {split: level.settings.view.see(signals) for split, signals in found.items()}


def _cut(traced: Traced, number: int, text: str, codec: Any) -> Traced:
    """A trace up to a step that says something else."""
    step = traced.steps[number]
    written = codec.encode(text)
    blank = [0.0] * len(written)
    last = replace(step, end=step.start + len(written), text=text, logprobs=blank, entropies=blank)
    return replace(traced, ids=traced.ids[: step.start] + written, steps=[*traced.steps[:number], last])


def _last_signal(read: Reader, detector: NeuronDetector, level: LevelDetector, traced: Traced) -> StepSignal:
    """A level's view of a trace's last step, all of it read in a plain pass."""
    observer = detector.observe("")
    values, logprobs, entropies = read(traced.ids)
    for step in traced.steps:
        span = slice(step.start, step.end)
        told = replace(step, logprobs=logprobs[span].tolist(), entropies=entropies[span].tolist())
        aligned = align(as_segment(told, values, traced.ids))
        assert aligned is not None  # noqa: S101 - everything was read
        signal = observer.signal(level, *aligned)
        observer.history[level.settings.level] = tail(signal.history, signal.signal)
    return signal


def _replace_positives(natural: tuple[Seen, Tensor], spoiled: Seen | None) -> tuple[Seen, Tensor]:
    """The sound steps with spoiled ones beside them."""
    seen, labels = natural
    sound = seen[(labels <= 0.5).nonzero()[:, 0]]
    if spoiled is None:
        return sound, torch.zeros(len(sound))
    return join([sound, spoiled]), torch.cat([torch.zeros(len(sound)), torch.ones(len(spoiled))])


def _by_task(data: LevelData, split: str, view: View, tasks: Sequence[str]) -> dict[str, tuple[Seen, Tensor]]:
    part, seen = data.split(split), data.seen(split, view)
    owners = [tasks[trace] for trace in part.traces.tolist()]
    found = {}
    for name in set(owners):
        index = torch.tensor([i for i, owner in enumerate(owners) if owner == name])
        found[name] = (seen[index], part.labels[index])
    return found


def _both(labels: Tensor) -> bool:
    positives = int((labels > 0.5).sum())
    return positives >= _FEWEST and len(labels) - positives >= _FEWEST


def _measure(classifier: StepClassifier, test: tuple[Seen, Tensor]) -> dict[str, Any]:
    scores = classifier.score(test[0])
    return {
        "auroc": round(auroc(scores, test[1]), 4),
        "average_precision": round(average_precision(scores, test[1]), 4),
        "n": len(test[1]),
        "positives": int(test[1].sum()),
    }
