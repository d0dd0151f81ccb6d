"""A model's own traces while it learns: sampled from a checkpoint, kept, and told."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nr_agent.detection.labels import base_rates, label_trace
from nr_agent.detection.trace_files import kept_traces, write_traces
from nr_agent.detection.traces import TRACES_VERSION, Traced
from nr_agent.engine.protocol import Sampling
from nr_agent.engine.torch_engine import Limits
from nr_agent.models.across import sampler
from nr_agent.models.registry import load_engine
from nr_agent.tasks import FAMILIES, draw
from nr_agent.training.corpus import Example
from nr_agent.training.own_tells import told_examples

SAMPLED_FROM = 300_000
"""First training seed of the traces that telltale neurons learn from."""

_APART = 10
_MAX_TOKENS = 640
_TEMPERATURES = (0.3, 0.6, 0.9)
_AT_ONCE = 256


def own_round(
    path: Path, model: Path, tokenizer: Any, number: int, problems: int, longest: int, log: Callable[[str], None]
) -> list[Example]:
    """The examples of a round; its traces are sampled once and kept in a file.

    Args:
        path: the file.
        model: folder of the checkpoint that thinks.
        tokenizer: its tokenizer.
        number: of the round; another one draws other problems.
        problems: a family.
        longest: tokens of an example.
        log: gets a line.
    """
    if not path.exists():
        log(f"sampling own traces, round {number}")
    traces = own_traces(path, model, SAMPLED_FROM + _APART * number * problems, problems)
    rates = base_rates([label_trace(traced) for traced in traces])
    log(f"own traces, round {number}: {len(traces)}, " + ", ".join(f"{k} {v:.1%}" for k, v in rates.items()))
    return told_examples(tokenizer, traces, longest)


def own_traces(path: Path, model: Path, first: int, problems: int) -> list[Traced]:
    """A model's own traces, sampled once and kept in a file: a third cold, a third warm, a third hot.

    Args:
        path: the file.
        model: folder of the model.
        first: seed of the first problem.
        problems: a family.
    """
    key = f"{first}+{problems}+v{TRACES_VERSION}"
    traces = kept_traces(path, key)
    if traces is None:
        traces = _sample(model, first, problems)
        write_traces(path, traces, key)
    return traces


def _sample(model: Path, first: int, count: int) -> list[Traced]:
    """Cold, warm and hot: what a model slips in when it is sure, and when it is not."""
    problems = [draw(name, seed) for seed in range(first, first + count) for name in FAMILIES]
    random.Random(first).shuffle(problems)
    traces: list[Traced] = []
    # In the precision that a CPU samples in: how often a model slips depends on it.
    engine = load_engine(str(model), dtype="float32", limits=Limits(slots=_AT_ONCE, batch=_AT_ONCE))
    sample = sampler(engine, str(model))
    try:
        for place, temperature in enumerate(_TEMPERATURES):
            part, sampling = problems[place :: len(_TEMPERATURES)], Sampling(temperature=temperature)
            at_once = _AT_ONCE if engine.model.device.type != "cpu" else 64
            traces += sample(part, sampling=sampling, seed=first, trials=False, at_once=at_once, max_tokens=_MAX_TOKENS)
    finally:
        engine.shutdown()
    return traces
