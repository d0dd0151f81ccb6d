"""How well a detector reads errors in other models' text: ProcessBench's measure, on readings of a plain pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nr_agent.detection.collect import Reader, as_segment, reader
from nr_agent.detection.detector import NeuronDetector
from nr_agent.detection.metrics import first_error_f1
from nr_agent.detection.processbench import StepwiseExample, as_trace
from nr_agent.detection.traces import Traced
from nr_agent.errors import LabelError


def slip_scores(engine: Any, detector: NeuronDetector, traced: Traced) -> list[float]:
    """The score of a slip in every step of a text that was not necessarily thought by this model.

    Raises:
        LabelError: the text is longer than the model's context.
    """
    with engine.quiet() as model, reader(model, detector.channels) as read:
        return _scores(engine, read, detector, traced)


def _scores(engine: Any, read: Reader, detector: NeuronDetector, traced: Traced) -> list[float]:
    if len(traced.ids) > engine.capabilities.context:
        raise LabelError(
            f"{traced.problem.metadata.get('id', 'a trace')} has {len(traced.ids)} tokens, {engine.name} takes "
            f"{engine.capabilities.context}",
            hint="leave it out, and say how many were",
        )
    observer = detector.observe("")
    values, logprobs, entropies = read(traced.ids)
    scores = []
    for number, step in enumerate(traced.steps):
        told = replace(
            step,
            logprobs=logprobs[step.start : step.end].tolist(),
            entropies=entropies[step.start : step.end].tolist(),
        )
        look = observer.look(as_segment(told, values, traced.ids), step=number, text=step.text)
        scores.append(look.scores["intra_step"])
    return scores


def read_errors(
    engine: Any, detector: NeuronDetector, examples: Sequence[StepwiseExample], threshold: float
) -> dict[str, float]:
    """ProcessBench's F1 of a detector, where the first step above a threshold is said to be the first wrong one.

    The threshold has to come from other examples: 20 are enough to find one (see `best_threshold`).
    """
    with engine.quiet() as model, reader(model, detector.channels) as read:
        scored = [_scores(engine, read, detector, as_trace(example, engine.codec)) for example in examples]
    return first_error_f1(first_above(scored, threshold), [example.label for example in examples])


def best_threshold(scored: Sequence[Sequence[float]], labels: Sequence[int]) -> float:
    """The threshold with the best F1 on examples that are not reported on, the highest of equals."""
    known = sorted({score for scores in scored for score in scores} | {1.0}, reverse=True)
    return max(known, key=lambda threshold: first_error_f1(first_above(scored, threshold), labels)["f1"])


def first_above(scored: Sequence[Sequence[float]], threshold: float) -> list[int]:
    """Of each text the first step whose score is above a threshold, -1 where none is."""
    return [next((i for i, score in enumerate(scores) if score > threshold), -1) for scores in scored]
