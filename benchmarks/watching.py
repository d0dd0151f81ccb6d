"""What a detector costs beside the model: the seconds it looks at steps / the seconds in which they are decoded.

All rows decode a step, then the detector looks at every one of them, one after another, while nothing else computes:
graphs that look while other rows decode pay less. The steps are as long as the model's own usually are. Gathering the
readings counts as decoding here; `benchmarks.engine` measures it.

python -m benchmarks.watching --detector FIT_FOLDER [--model smollm2] [--rows 1,8,32] [--rounds 12] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import Ratio, table, write
from nr_agent.detection.detector import NeuronDetector
from nr_agent.detection.trace_files import load_traces
from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec
from nr_agent.models.registry import load_engine

TARGET = 0.02


def main(arguments: Sequence[str] | None = None) -> None:
    """Decode and look in turn; print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, required=True, help="folder of a fit, with its traces")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    traces = load_traces(options.detector / "traces.jsonl")
    usual = round(statistics.mean(step.end - step.start for traced in traces for step in traced.steps))
    engine = load_engine(options.model)
    try:
        detector = NeuronDetector.load(options.detector, engine)
        engine.attach(detector.plan)
        prompts = [traced.ids[: traced.steps[0].start] for traced in traces if traced.steps]
        rows = [
            watch(engine, detector, [prompts[row % len(prompts)] for row in range(count)], usual, options.rounds)
            for count in map(int, options.rows.split(","))
        ]
    finally:
        engine.shutdown()
    print(table(rows))
    about = {
        "model": engine.name,
        "channels": len(detector.channels),
        "tokens a step": usual,
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    write(options.json, about, rows)


def watch(engine: Any, detector: NeuronDetector, prompts: Sequence[Sequence[int]], tokens: int, rounds: int) -> Ratio:
    """The share for so many rows, the median over rounds of one step each."""
    sampling = Sampling(temperature=0.6, suppress=tuple(engine.codec.end_ids))
    refs = [engine.open(prompt) for prompt in prompts]
    observers = [detector.observe(str(row)) for row in range(len(refs))]
    shares, each, events = [], [], 0
    for number in range(rounds + 1):
        begun = time.perf_counter()
        futures = [engine.submit(ExtendRequest(ref, StopSpec(max_new=tokens), sampling)) for ref in refs]
        wait(futures)
        decoded = time.perf_counter() - begun
        steps = [future.result() for future in futures]
        refs = [step.ref for step in steps]
        texts = [engine.codec.decode(step.ids) for step in steps]
        begun = time.perf_counter()
        looks = [
            observer.look(step, step=number, text=text)
            for observer, step, text in zip(observers, steps, texts, strict=True)
        ]
        looked = time.perf_counter() - begun
        if number:  # the first pays for what is made once
            shares.append(looked / decoded)
            each.append(looked / len(refs) / tokens)
            events += sum(len(look.events) for look in looks)
    for ref in refs:
        engine.close(ref)
    what = f"looking at steps of {tokens} tokens / decoding them, {len(refs)} row{'s' * (len(refs) > 1)}"
    raised = events / rounds / len(refs)
    note = f"{1e6 * statistics.median(each):.0f} microseconds a token, {raised:.2f} events a step"
    return Ratio(what, statistics.median(shares), min(shares), max(shares), TARGET, note)


if __name__ == "__main__":
    main()
