"""Copies of steps, which are most of what is written: one that nobody else can change, and one as it is read back."""

from __future__ import annotations

import math

from nr_agent.episode import ReadingSummary, Step
from nr_agent.events import LEVELS
from nr_agent.store.cleaning import clean_json, clean_text
from nr_agent.store.columns import as_stored

_NAN, _INFINITY = float("nan"), float("inf")


def own_step(step: Step) -> Step:
    """A copy whose lists are its own: what is queued stays as it is, whatever becomes of the step."""
    lists = {
        "ids": [*step.ids],
        "provenance": [*step.provenance],
        "logprobs": [*step.logprobs],
        "readings": [*step.readings],
    }
    return step.model_copy(update=lists)


def step_as_read(step: Step) -> Step:
    """A copy as a database gives it back: texts cleaned, log-probabilities rounded, no infinities."""
    logprobs = as_stored(step.logprobs)
    if _INFINITY in logprobs or -_INFINITY in logprobs:
        logprobs = as_stored(clean_json(step.logprobs))
    parts = {
        "branch": clean_text(step.branch),
        "ids": [*step.ids],
        "provenance": [*step.provenance],
        "logprobs": logprobs,
        "text": clean_text(step.text),
        "stop": clean_text(step.stop),
        "readings": [_reading_as_read(reading) for reading in step.readings],
    }
    return step.model_copy(update=parts)


def _reading_as_read(reading: ReadingSummary) -> ReadingSummary:
    total = reading.mean + reading.maximum + reading.minimum + reading.std + reading.score
    if math.isfinite(total) and reading.level in LEVELS:
        return reading
    values = {
        name: _NAN if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in vars(reading).items()
    }
    return reading.model_copy(update=values | {"level": clean_text(reading.level)})
