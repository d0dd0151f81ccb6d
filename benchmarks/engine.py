"""What the tap, the steps and the graph cost, and the same work done by others, as ratios from one run.

python -m benchmarks.engine [--model smollm2|nano|PATH] [--channels 1000] [--rounds 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import torch

from benchmarks import peers
from benchmarks.measuring import Ratio, compare, table, write
from nr_agent import EpisodeStore, create_reasoner
from nr_agent.detection.collect import all_channels
from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec
from nr_agent.errors import ModelError
from nr_agent.graphs import Budget
from nr_agent.models.registry import load_engine
from nr_agent.neurons.sites import find_sites
from nr_agent.neurons.tap import ChannelPlan, NeuronTap, lasting, self_check

STEPS, STEP_TOKENS = 4, 16
GRAPHS, GRAPH_TOKENS = 64, 48
PIECES, PIECE_TOKENS = 16, 4
"""Pieces a round in which a decoding with the tap and one without take turns: what else the machine does meets both."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="smollm2 (nr-agent models pull smollm2), nano, or a folder")
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    try:
        engine = load_engine(options.model)
    except ModelError as error:
        if arguments is None:
            raise
        print(f"{error}: measuring nano instead")
        engine = load_engine("nano")
    about = {
        "model": engine.name,
        "channels": options.channels,
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    print(f"{engine.name}, {options.channels} channels over all layers, median of {options.rounds} paired rounds")
    chosen = _spread(all_channels(engine.model), options.channels)
    rows = [
        *tap_cost(engine, chosen, options.rounds),
        *against_others(engine, chosen, options.rounds),
        *graph_cost(engine, options.rounds),
    ]
    engine.shutdown()
    print(f"\n{table(rows)}")
    write(options.json, about, rows)


class Proven:
    """A plan that was proven before: it can come and go between two pieces of decoding."""

    def __init__(self, model: Any, channels: Sequence[Any]) -> None:
        self.channels, self.sites = channels, find_sites(model)
        self_check(model, self.sites)
        self.lasting = lasting(model, self.sites)

    def install(self, model: Any) -> NeuronTap:
        """The tap, without proof."""
        return NeuronTap(self.sites, self.channels, model.device, lasting=self.lasting)


def tap_cost(engine: Any, chosen: Sequence[Any], rounds: int) -> list[Ratio]:
    """Decoding with the tap / without, for 1, 8 and 32 rows: piece by piece in turn, on the same sequences."""
    plan, found = Proven(engine.model, chosen), []
    for rows in (1, 8, 32):
        refs = [engine.open(prompt) for prompt in _prompts(engine, rows)]
        refs, _ = _piece(engine, refs)

        def decode(tapped: bool, refs: list[Any] = refs) -> float:
            engine.attach(plan if tapped else None)
            refs[:], taken = _piece(engine, refs)
            return taken

        name = f"decoding with the tap / without, {rows} row{'s' * (rows > 1)}"
        row = compare(name, lambda d=decode: d(True), lambda d=decode: d(False), target=1.02, rounds=PIECES * rounds)  # type: ignore[misc]
        found.append(row)
        for ref in refs:
            engine.close(ref)
    engine.attach(None)
    return found


def _piece(engine: Any, refs: Sequence[Any]) -> tuple[list[Any], float]:
    """All rows a few tokens further, and the seconds it took."""
    greedy = Sampling(temperature=0, suppress=tuple(engine.codec.end_ids))
    started = time.perf_counter()
    futures = [engine.submit(ExtendRequest(ref, StopSpec(max_new=PIECE_TOKENS), greedy)) for ref in refs]
    wait(futures)
    return [future.result().ref for future in futures], time.perf_counter() - started


def against_others(engine: Any, chosen: Sequence[Any], rounds: int) -> list[Ratio]:
    """8 ragged rows in steps with kept caches / the same tokens by others; where those read, we read as well."""
    prompts, new = _prompts(engine, 8), STEPS * STEP_TOKENS
    found = []

    def bare() -> float:
        engine.attach(None)
        return _in_steps(engine, prompts)

    def reading() -> float:
        engine.attach(ChannelPlan(chosen))
        return _in_steps(engine, prompts)

    neurons = [channel for channel in chosen if channel.kind == "ffn"]
    cases: list[tuple[str, Callable[[], float], Callable[[], Callable[[], float]], float | None]] = [
        ("generate, one by one", bare, lambda: peers.one_by_one(engine, prompts, new), 0.28),
        ("transformers' generate_batch", bare, lambda: peers.continuous(engine, prompts, new), 1.0),
        (
            "nnsight reading the same neurons, one by one",
            reading,
            lambda: peers.nnsight(engine, prompts, new, neurons, padded=False),
            0.5,
        ),
        (
            "nnsight, one padded batch without steps",
            reading,
            lambda: peers.nnsight(engine, prompts, new, neurons, padded=True),
            None,
        ),
        (
            "TransformerLens reading them, one by one",
            reading,
            lambda: peers.transformer_lens(engine, prompts, new, neurons),
            0.5,
        ),
    ]
    for name, ours, make, target in cases:
        what = f"8 ragged rows in steps / {name}"
        try:
            theirs = make()
        except ImportError as error:
            found.append(Ratio(what, None, target=target, note=str(error)))
            continue
        found.append(compare(what, ours, theirs, target=target, rounds=rounds))
    engine.attach(None)
    return found


def graph_cost(engine: Any, rounds: int) -> list[Ratio]:
    """64 graphs at once, and one alone, against the same tokens from the bare scheduler; what a superstep takes."""
    found = []
    for graphs, target in ((GRAPHS, 1.10), (1, None)):
        shares: list[tuple[float, float]] = []
        written: list[list[Part]] = []
        prompts = _prompts(engine, graphs)

        def through_graphs(
            graphs: int = graphs, written: list[Any] = written, shares: list[tuple[float, float]] = shares
        ) -> float:
            # A superstep for each step of the episode, its prompt among them, and one that records it.
            with _in_flight(engine) as computed:
                taken, written[:], steps = _graphs(engine, graphs)
            shares.append(((taken - sum(computed)) / taken, (taken - sum(computed)) / (steps + 1)))
            return taken

        def bare(prompts: Sequence[Sequence[int]] = prompts, written: list[Any] = written) -> float:
            return _at_once(engine, prompts, written)

        name = (
            f"{graphs} concurrent graph runs / the same tokens in one batch" if graphs > 1 else "one graph run / bare"
        )
        found.append(compare(name, through_graphs, bare, target=target, rounds=rounds))
        if graphs == 1:
            share, each = (statistics.median(values) for values in zip(*shares, strict=True))
            low, high = min(shares)[0], max(shares)[0]
            what = "a graph's share of its episode, store and all"
            found.append(Ratio(what, share, low, high, note=f"{1e3 * each:.1f} ms a superstep"))
    return found


@contextlib.contextmanager
def _in_flight(engine: Any) -> Iterator[list[float]]:
    """Collects the seconds that each step of the engine is under way, while it is not shared."""
    seconds: list[float] = []
    submit = engine.submit

    def timed(request: ExtendRequest) -> Future[Any]:
        started = time.perf_counter()
        future: Future[Any] = submit(request)
        future.add_done_callback(lambda _: seconds.append(time.perf_counter() - started))
        return future

    engine.submit = timed
    try:
        yield seconds
    finally:
        del engine.submit


Part = tuple[list[int], int]
"""Tokens that are inserted, and how many are sampled behind them."""


def _graphs(engine: Any, count: int) -> tuple[float, list[list[Part]], int]:
    """Seconds, what each episode inserted and sampled, and the steps of all, of so many episodes at once."""
    store = EpisodeStore.in_memory()
    reasoner = create_reasoner(
        engine,
        detector=None,
        control=False,
        store=store,
        sampling=Sampling(temperature=0, suppress=tuple(engine.codec.end_ids)),
        budget=Budget(max_tokens=GRAPH_TOKENS, max_step_tokens=STEP_TOKENS, max_answer_tokens=1),
    )

    async def run() -> list[Any]:
        texts = [_text(number) for number in range(count)]
        return await asyncio.gather(
            *(reasoner.ainvoke({"messages": [{"role": "user", "content": text}]}) for text in texts)
        )

    started = time.perf_counter()
    outcomes = asyncio.run(run())
    taken = time.perf_counter() - started
    episodes = [store.get(outcome["reasoning"]["episode_id"]) for outcome in outcomes]
    return taken, [_parts(episode) for episode in episodes], sum(len(episode.kept) for episode in episodes)


def _parts(episode: Any) -> list[Part]:
    parts: list[Part] = [([], 0)]
    for step in episode.kept:
        if step.kind == "prompt":
            continue
        for token, logprob in zip(step.ids, step.logprobs, strict=True):
            inserted, sampled = parts[-1]
            if logprob is not None:
                parts[-1] = inserted, sampled + 1
            elif sampled:
                parts.append(([token], 0))
            else:
                inserted.append(token)
    return parts


def _at_once(engine: Any, prompts: Sequence[Sequence[int]], written: Sequence[Sequence[Part]]) -> float:
    """Seconds for the same tokens in as few goes as there are insertions: no steps, no graph."""
    greedy = Sampling(temperature=0, suppress=tuple(engine.codec.end_ids))
    started = time.perf_counter()
    refs = [engine.open(prompt) for prompt in prompts]
    for go in range(max(map(len, written))):
        futures = {
            row: engine.submit(
                ExtendRequest(refs[row], StopSpec(max_new=parts[go][1]), greedy, force=parts[go][0], readings=False)
            )
            for row, parts in enumerate(written)
            if go < len(parts)
        }
        wait(futures.values())
        for row, future in futures.items():
            refs[row] = future.result().ref
    taken = time.perf_counter() - started
    for ref in refs:
        engine.close(ref)
    return taken


def _in_steps(engine: Any, prompts: Sequence[Sequence[int]]) -> float:
    """Seconds for some rows to be decoded in steps, all at once; nothing stops them early."""
    greedy = Sampling(temperature=0, suppress=tuple(engine.codec.end_ids))
    started = time.perf_counter()
    refs = [engine.open(prompt) for prompt in prompts]
    for _ in range(STEPS):
        futures = [engine.submit(ExtendRequest(ref, StopSpec(max_new=STEP_TOKENS), greedy)) for ref in refs]
        wait(futures)
        refs = [future.result().ref for future in futures]
    taken = time.perf_counter() - started
    for ref in refs:
        engine.close(ref)
    return taken


def _spread(channels: Sequence[Any], count: int) -> list[Any]:
    return list(channels[:: max(1, len(channels) // count)][:count])


def _prompts(engine: Any, rows: int) -> list[list[int]]:
    return [engine.codec.render([{"role": "user", "content": _text(row)}]) for row in range(rows)]


def _text(row: int) -> str:
    return f"What is {' + '.join(str(17 * (i + 3) % 97) for i in range(2 + row % 7))}?"


if __name__ == "__main__":
    main()
