"""Traces sampled by several processes at once: a small model's passes are too short to share out a pass.

A trace is a function of its problem and its seed, so it is the same however many processes there are.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import torch

from nr_agent.detection.traces import Traced, sample_traces
from nr_agent.engine.cores import usable_cores
from nr_agent.engine.protocol import Sampling
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.episode import Problem
from nr_agent.errors import EngineError
from nr_agent.models.registry import load_engine

_SMALL = 100_000_000
"""Bytes of weights up to which processes are better than threads."""
_FEW = 16
_JOBS = 4
"""Pieces of work a process: so that progress shows, and nobody waits long for the last one."""


def sample_across(
    model: str,
    problems: Sequence[Problem],
    *,
    sampling: Sampling,
    seed: int = 0,
    max_tokens: int = 768,
    trials: bool = True,
    at_once: int = 32,
    progress: Callable[[int], None] | None = None,
) -> list[Traced]:
    """`sample_traces` by name or folder of a model, a process a core, each with one thread and its own engine.

    Args:
        model: its name, or its folder.
        problems: the problems; trace `i` is drawn with seed `seed + i`.
        sampling: how tokens are drawn.
        seed: seed of the first trace.
        max_tokens: where a trace that does not end is cut.
        trials: whether to take trial answers.
        at_once: traces that a process thinks at the same time.
        progress: called with the number of finished traces.

    Raises:
        EngineError: a process was ended from outside.
    """
    workers = max(1, min(usable_cores(), len(problems) // _FEW))
    pieces = [range(start, len(problems), workers * _JOBS) for start in range(workers * _JOBS)]
    traces: dict[int, Traced] = {}
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawned, initializer=_prepare, initargs=(model,)) as pool:
        waiting = {
            pool.submit(
                _sample,
                [problems[number] for number in piece],
                [seed + number for number in piece],
                sampling,
                max_tokens,
                trials,
                at_once,
            ): piece
            for piece in pieces
            if piece
        }
        try:
            for done in as_completed(waiting):
                traces.update(zip(waiting[done], done.result(), strict=True))
                if progress is not None:
                    progress(len(traces))
        except BrokenProcessPool as error:
            raise EngineError(
                f"one of {workers} processes that sample {model} was ended from outside",
                hint="most likely the memory ran out: free some, or allow fewer cores (taskset -c 0-3 nr-agent ...)",
            ) from error
    return [traces[number] for number in range(len(problems))]


def sampler(engine: TorchEngine, source: str) -> Callable[..., list[Traced]]:
    """What samples traces of a model best: several processes where it is small and on a CPU, else its engine.

    Args:
        engine: runs the model.
        source: the model's name, or its folder.
    """
    weights = list(engine.model.parameters())
    small = weights[0].device.type == "cpu" and sum(weight.nbytes for weight in weights) <= _SMALL
    return partial(_sample_small, engine, source) if small else partial(sample_traces, engine)


def _sample_small(engine: TorchEngine, source: str, problems: Sequence[Problem], **how: Any) -> list[Traced]:
    """Of a small model: a few problems are done before other processes have begun."""
    few = len(problems) < 2 * _FEW
    return sample_traces(engine, problems, **how) if few else sample_across(source, problems, **how)


_engine: list[TorchEngine] = []


def _prepare(model: str) -> None:
    torch.set_num_threads(1)
    _engine[:] = [load_engine(model)]


def _sample(
    problems: Sequence[Problem], seeds: Sequence[int], sampling: Sampling, max_tokens: int, trials: bool, at_once: int
) -> list[Traced]:
    (engine,) = _engine
    return sample_traces(
        engine,
        problems,
        sampling=sampling,
        seeds=seeds,
        max_tokens=max_tokens,
        trials=trials,
        at_once=at_once,
    )
