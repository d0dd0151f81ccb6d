"""What the tap, the steps and the graph cost, as ratios from one run.

python -m benchmarks.engine [--model nano|PATH] [--channels 1000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import torch

from nr_agent import create_reasoner
from nr_agent.detection.collect import all_channels
from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec
from nr_agent.graphs import Budget
from nr_agent.models.registry import load_engine
from nr_agent.neurons.tap import ChannelPlan

STEPS, STEP_TOKENS, ROUNDS = 4, 16, 7


def main() -> None:
    """Measure, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    engine = load_engine(options.model)
    rows = [*tap_cost(engine, options.channels), steps_against_generate(engine), graph_share(engine)]
    engine.shutdown()
    width = max(len(row["what"]) for row in rows)
    print(f"\n{engine.name}, {torch.get_num_threads()} threads, median of {ROUNDS} paired rounds")
    for row in rows:
        print(f"{row['what']:{width}}  {row['ratio']:6.3f}  (from {row['low']:.3f} to {row['high']:.3f})")
    if options.json:
        options.json.write_text(json.dumps({"model": engine.name, "rows": rows}, indent=1) + "\n")


def tap_cost(engine: Any, channels: int) -> list[dict[str, Any]]:
    """Decoding with the tap / without, for 1, 8 and 32 rows."""
    every = all_channels(engine.model)
    chosen = every[:: max(1, len(every) // channels)][:channels]
    found = []
    for rows in (1, 8, 32):

        def decode(tapped: bool, rows: int = rows) -> float:
            engine.attach(ChannelPlan(chosen) if tapped else None)
            return _steps(engine, _prompts(engine, rows))

        name = f"decoding with {len(chosen)} channels tapped / without, {rows} rows"
        found.append(_ratio(name, lambda d=decode: d(True), lambda d=decode: d(False)))
    engine.attach(None)
    return found


def steps_against_generate(engine: Any) -> dict[str, Any]:
    """8 ragged rows in steps with kept caches / `generate` one by one."""
    prompts = _prompts(engine, 8)

    def generate() -> float:
        started = time.perf_counter()
        for prompt in prompts:
            engine.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                do_sample=False,
                temperature=None,
                top_p=None,
                min_new_tokens=STEPS * STEP_TOKENS,
                max_new_tokens=STEPS * STEP_TOKENS,
            )
        return time.perf_counter() - started

    return _ratio("8 ragged rows in steps / generate, one by one", lambda: _steps(engine, prompts), generate)


def graph_share(engine: Any) -> dict[str, Any]:
    """An episode through the graph, in-memory store and all / the same tokens from the bare engine."""
    text = "State the final answer to the following arithmetic problem: 837 - 292 - 113 + 568 ="
    reasoner = create_reasoner(
        engine, detector=None, control=False, sampling=Sampling(temperature=0), budget=Budget(max_tokens=256)
    )

    def graph() -> float:
        started = time.perf_counter()
        reasoner.invoke({"messages": [{"role": "user", "content": text}]})
        return time.perf_counter() - started

    def bare() -> float:
        started = time.perf_counter()
        ref = engine.open(engine.codec.render([{"role": "user", "content": text}]))
        end = engine.codec.control("</think>")
        while True:
            segment = engine.extend(
                ref, stop=StopSpec(engine.codec.end_ids | {end}, ("\n\n",), 256), sampling=Sampling(temperature=0)
            )
            ref = segment.ref
            if segment.end == "stop_id" and segment.ids[-1] != end:
                break
        engine.close(ref)
        return time.perf_counter() - started

    return _ratio("an episode through the graph / the bare engine", graph, bare)


def _steps(engine: Any, prompts: Sequence[Sequence[int]]) -> float:
    """Seconds for some rows to be decoded in steps, all at once; nothing stops them early."""
    refs = [engine.open(prompt) for prompt in prompts]
    greedy = Sampling(temperature=0, suppress=tuple(engine.codec.end_ids))
    started = time.perf_counter()
    for _ in range(STEPS):
        futures = [engine.submit(ExtendRequest(ref, StopSpec(max_new=STEP_TOKENS), greedy)) for ref in refs]
        wait(futures)
        refs = [future.result().ref for future in futures]
    seconds = time.perf_counter() - started
    for ref in refs:
        engine.close(ref)
    return seconds


def _prompts(engine: Any, rows: int) -> list[list[int]]:
    terms = [" + ".join(str(17 * (i + 3) % 97) for i in range(2 + row % 7)) for row in range(rows)]
    return [engine.codec.render([{"role": "user", "content": f"What is {text}?"}]) for text in terms]


def _ratio(what: str, ours: Callable[[], float], theirs: Callable[[], float]) -> dict[str, Any]:
    """The median of the paired ratios; which side goes first alternates."""
    ours(), theirs()
    ratios = []
    for number in range(ROUNDS):
        if number % 2:
            denominator, numerator = theirs(), ours()
        else:
            numerator, denominator = ours(), theirs()
        ratios.append(numerator / denominator)
    return {"what": what, "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


if __name__ == "__main__":
    main()
