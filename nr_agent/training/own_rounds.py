"""A model's own traces while it learns: sampled from a checkpoint, kept, and told."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nr_agent.detection.fit import from_json
from nr_agent.detection.labels import base_rates, label_trace
from nr_agent.detection.traces import Traced, sample_traces
from nr_agent.engine.protocol import Sampling
from nr_agent.models.registry import load_engine
from nr_agent.tasks import FAMILIES, draw
from nr_agent.training.corpus import Example
from nr_agent.training.own_tells import told_examples

SAMPLED_FROM = 300_000
"""First training seed of the traces that telltale neurons learn from."""

_APART = 10
_MAX_TOKENS = 512
_TEMPERATURES = (0.3, 0.6, 0.9)


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
    if not path.exists():
        _write(path, _sample(model, first, problems))
    with path.open() as file:
        return [from_json(json.loads(line)) for line in file]


def _sample(model: Path, first: int, count: int) -> list[Traced]:
    """Cold, warm and hot: what a model slips in when it is sure, and when it is not.

    A process a core, each with one thread: a small model's passes are too short to be shared.
    """
    workers = max(1, min(os.cpu_count() or 1, count // 4))
    shares = [range(first + start, first + count, workers) for start in range(workers)]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
        return [traced for part in pool.map(_sample_part, [model] * workers, shares) for traced in part]


def _sample_part(model: Path, seeds: range) -> list[Traced]:
    torch.set_num_threads(1)
    problems = [draw(name, seed) for seed in seeds for name in FAMILIES]
    random.Random(seeds.start).shuffle(problems)
    engine = load_engine(str(model))
    try:
        traces: list[Traced] = []
        for place, temperature in enumerate(_TEMPERATURES):
            part = problems[place :: len(_TEMPERATURES)]
            sampling = Sampling(temperature=temperature)
            traces += sample_traces(
                engine, part, sampling=sampling, seed=seeds.start, trials=False, at_once=64, max_tokens=_MAX_TOKENS
            )
        return traces
    finally:
        engine.shutdown()


def _write(path: Path, traces: Sequence[Traced]) -> None:
    partial = path.with_suffix(".partial")
    lines = (asdict(traced) | {"problem": traced.problem.model_dump()} for traced in traces)
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    partial.replace(path)
