"""Whether a token costs more the more steps, rollbacks and readings an episode has behind it.

Two sequences with the same prompt grow side by side to 4,000 tokens, a stretch of each in turn: one in steps of 16
tokens with channels read, every fifth step taken back and thought again, all readings kept; the other in one go per
stretch, reading nothing. Both attend to the same length, so what differs is the cost of the steps.

python -m benchmarks.long_episode [--model smollm2|nano|PATH] [--tokens 4000] [--json FILE] [--svg FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nr_agent.detection.collect import all_channels
from nr_agent.engine.protocol import Readings, Sampling, SequenceRef, StopSpec
from nr_agent.models.registry import load_engine
from nr_agent.neurons.tap import ChannelPlan

STEP, STRETCH, TAKEN_BACK = 16, 160, 5


@dataclass(frozen=True)
class Stretch:
    """What a token cost on a stretch of the episode, in milliseconds.

    Attributes:
        tokens: length of the sequence at its end.
        in_steps: with steps, rollbacks and readings; tokens that were taken back count as tokens.
        in_one_go: without.
    """

    tokens: int
    in_steps: float
    in_one_go: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures and the plot if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args(arguments)
    engine = load_engine(options.model)
    every = all_channels(engine.model)
    plan = ChannelPlan(every[:: max(1, len(every) // options.channels)][: options.channels])
    stretches = measure(engine, plan, options.tokens)
    engine.shutdown()
    ratios = [stretch.in_steps / stretch.in_one_go for stretch in stretches]
    quarter = max(1, len(ratios) // 4)
    first, last = statistics.median(ratios[:quarter]), statistics.median(ratios[-quarter:])
    print(f"{engine.name}: a token in steps / in one go: {first:.3f} in the first quarter, {last:.3f} in the last")
    if options.json:
        rows = [asdict(stretch) for stretch in stretches]
        options.json.write_text(json.dumps({"model": engine.name, "stretches": rows}, indent=1) + "\n")
    if options.svg:
        options.svg.parent.mkdir(parents=True, exist_ok=True)
        options.svg.write_text(plot(stretches, engine.name))


def measure(engine: Any, plan: ChannelPlan, tokens: int) -> list[Stretch]:
    """Grow both sequences to so many tokens."""
    prompt = engine.codec.render([{"role": "user", "content": "Count as far as you can."}])
    stepped, plain = engine.open(prompt), engine.open(prompt)
    kept: list[Readings] = []
    found: list[Stretch] = []
    _in_steps(engine, plan, engine.open(prompt), [])  # warms up, and is thrown away
    while stepped.length + STRETCH <= min(tokens, engine.capabilities.context - 1):
        one, plain = _in_one_go(engine, plain)
        several, stepped = _in_steps(engine, plan, stepped, kept)
        found.append(Stretch(stepped.length, several, one))
        print(f"  {stepped.length} tokens: {several:.1f} ms in steps, {one:.1f} ms in one go", flush=True)
    return found


def plot(stretches: Sequence[Stretch], name: str) -> str:
    """Both costs over the length of the episode, as SVG."""
    width, height, left, base = 720, 300, 60, 250
    longest = max(stretch.tokens for stretch in stretches)
    top = 1.15 * max(max(stretch.in_steps, stretch.in_one_go) for stretch in stretches)

    def points(values: Sequence[float]) -> str:
        places = zip(stretches, values, strict=True)
        return " ".join(
            f"{left + (width - left - 20) * stretch.tokens / longest:.1f},{base - (base - 30) * value / top:.1f}"
            for stretch, value in places
        )

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18">milliseconds a token, {name}, one row</text>',
        f'<path d="M{left} 30V{base}H{width - 20}" fill="none" stroke="#888"/>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + (width - left - 20) * share, base - (base - 30) * share
        lines.append(f'<text x="{x:.0f}" y="{base + 18}" text-anchor="middle">{longest * share:.0f}</text>')
        lines.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{top * share:.0f}</text>')
    for number, (label, colour, values) in enumerate(
        (
            ("in steps, with rollbacks, all readings kept", "#c2410c", [s.in_steps for s in stretches]),
            ("in one go, nothing read", "#1d4ed8", [s.in_one_go for s in stretches]),
        )
    ):
        lines.append(f'<polyline points="{points(values)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="{left + 12}" y="{base - 30 + 16 * number}" fill="{colour}">{label}</text>')
    lines.append(f'<text x="{width // 2}" y="{height - 12}" text-anchor="middle">tokens of the episode</text></svg>')
    return "\n".join(lines) + "\n"


def _in_steps(engine: Any, plan: ChannelPlan, ref: SequenceRef, kept: list[Readings]) -> tuple[float, SequenceRef]:
    """Milliseconds a token over a stretch of steps, and where it ended."""
    engine.attach(plan)
    sampled, started = 0, time.perf_counter()
    for number in range(STRETCH // STEP):
        for attempt in range(2 if number % TAKEN_BACK == TAKEN_BACK - 1 else 1):
            if attempt:
                ref = engine.rollback(ref, to=ref.length - STEP)
            segment = engine.extend(ref, stop=StopSpec(max_new=STEP), sampling=_greedy(engine))
            ref = segment.ref
            sampled += len(segment.ids)
            if segment.readings is not None:
                kept.append(segment.readings)
    return 1e3 * (time.perf_counter() - started) / sampled, ref


def _in_one_go(engine: Any, ref: SequenceRef) -> tuple[float, SequenceRef]:
    engine.attach(None)
    started = time.perf_counter()
    segment = engine.extend(ref, stop=StopSpec(max_new=STRETCH), sampling=_greedy(engine), readings=False)
    return 1e3 * (time.perf_counter() - started) / len(segment.ids), segment.ref


def _greedy(engine: Any) -> Sampling:
    return Sampling(temperature=0, suppress=tuple(engine.codec.end_ids))


if __name__ == "__main__":
    main()
