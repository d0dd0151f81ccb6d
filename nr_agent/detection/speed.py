"""What watching costs: the detector's own time a token, besides the model's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nr_agent.detection.collect import as_segment, read_traces
from nr_agent.detection.detector import NeuronDetector
from nr_agent.detection.traces import Traced

_TRACES = 24


def microseconds_per_token(model: Any, detector: NeuronDetector, traces: Sequence[Traced]) -> float:
    """Mean time of the watch a token, over whole traces step by step, as a reasoner calls it.

    Features, scores and events are in it; gathering the readings, which happens inside the forward pass, is not.
    """
    watched = [traced for traced in traces if traced.steps][:_TRACES]
    spent, tokens = 0.0, 0
    for number, values in read_traces(model, watched, detector.channels):
        traced = watched[number]
        segments = [as_segment(step, values, traced.ids) for step in traced.steps]
        observer = detector.observe("timed")
        observer.fork().look(segments[0], step=0, text="")  # the first call pays for what is made once
        begun = time.perf_counter()
        for place, segment in enumerate(segments):
            observer.look(segment, step=place, text=traced.steps[place].text)
        spent += time.perf_counter() - begun
        tokens += sum(len(segment.ids) for segment in segments)
    return round(1e6 * spent / max(1, tokens), 1)
