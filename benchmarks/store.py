"""What the episode store costs: its share of an episode, episodes and rows a second, and whether its size matters.

python -m benchmarks.store [--models nano,smollm2] [--small 1000] [--large 200000] [--postgres URL] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nr_agent.episode import Episode
from nr_agent.export import export
from nr_agent.store import EpisodeFilter, EpisodeStore
from nr_agent.store.writer import Writer
from nr_agent.testing.store_suite import make_episode, make_step

TARGET = 0.01
"""At most this share of an episode's wall time may be spent waiting for the store."""

STEPS, TOKENS = 20, 40
"""Of an episode whose writing is timed."""

BULK_STEPS = 6
"""Of an episode that a store grows by."""

ROWS = 5000
"""Rows that are exported, at most: the newest."""

_ROUNDS, _EPISODES = 7, 40  # a rate is the median of so many rounds of so many episodes
_METHODS = ("begin", "add", "discard", "finish", "get", "flush")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", default="nano", help="whose episodes are looked at, separated by commas; '' for none"
    )
    parser.add_argument("--problems", type=int, default=20, help="problems that each model solves")
    parser.add_argument("--small", type=int, default=1000, help="episodes in the small store")
    parser.add_argument("--large", type=int, default=200_000, help="and in the large one")
    parser.add_argument("--postgres", help="URL of an empty database; without one PostgreSQL is left out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    models = [name for name in options.models.split(",") if name]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        places = {"sqlite": str(Path(folder) / "store.db")} | (
            {"postgresql": options.postgres} if options.postgres else {}
        )
        for name, url in places.items():
            found[name] = grow(name, url, (options.small, options.large), models, options.problems, Path(folder))
            _keep(found, options.json)
    print(json.dumps(found, indent=1))


def grow(
    name: str, url: str, sizes: tuple[int, int], models: Sequence[str], problems: int, folder: Path
) -> dict[str, Any]:
    """Fill a store to two sizes, measure at each, and say how many times as long everything takes in the large one."""
    found: dict[str, Any] = {}
    at = 0
    for size in sizes:
        begun = time.perf_counter()
        with EpisodeStore(url) as store:
            for number in range(at, size):
                store.begin(_bulk(f"g{number:07}"), wait=False)
            store.flush()
        at, filled = size, time.perf_counter() - begun
        sys.stderr.write(f"{name}: {size} episodes after {filled:.0f} s\n")
        found[str(size)] = measured = {"filled_in": filled, **speed(url, folder / f"{name}-{size}")}
        for model in models:
            measured[f"share_{model}"] = share(model, problems, url)
    small, large = (found[str(size)] for size in sizes)
    found["ratio"] = {name: large["seconds"][name] / small["seconds"][name] for name in small["seconds"]} | {
        f"wait_{model}": large[f"share_{model}"]["wait"] / small[f"share_{model}"]["wait"] for model in models
    }
    return found


def speed(url: str, folder: Path) -> dict[str, Any]:
    """Seconds to write, read, find and export an episode, in a store as it is, and the rates that follow."""
    prefix = f"n{time.time_ns()}"
    with EpisodeStore(url) as store:
        _write(store, f"{prefix}-warm")
        seconds = {
            "write": _seconds(lambda n: _write(store, f"{prefix}-{n}")),
            "get": _seconds(lambda n: store.get(f"{prefix}-{n}")),
            "find": _seconds(lambda _: list(store.find(EpisodeFilter(limit=20)))),
        }
        begun = time.perf_counter()
        count = sum(1 for _ in store.find(EpisodeFilter(correct=True)))
        seconds["find_each"] = (time.perf_counter() - begun) / count
        begun = time.perf_counter()
        newest = EpisodeFilter(limit=ROWS)
        rows = export(store, folder, format="pretokenized", files="jsonl", filter=newest).rows
        seconds["export_row"] = (time.perf_counter() - begun) / rows
    return {
        "episodes_per_second": 1 / seconds["write"],
        "rows": rows,
        "rows_per_second": 1 / seconds["export_row"],
        "seconds": seconds,
    }


def share(model: str, problems: int, url: str) -> dict[str, Any]:
    """What of an episode's wall time is the store's.

    Returns:
        Seconds an episode takes (`seconds`), waits for the store (`wait`; by method in `waits`), and that the
        writer's thread computes beside it (`writer_cpu`); and what share of it the two are.
    """
    from nr_agent import create_reasoner  # noqa: PLC0415 - loads torch, and only this needs it

    clocks = {name: _Clock(getattr(EpisodeStore, name), time.perf_counter) for name in _METHODS}
    beside = _Clock(Writer._commit, time.thread_time)
    timed = type("Timed", (EpisodeStore,), {name: clock.call for name, clock in clocks.items()})
    real, Writer._commit = Writer._commit, beside.call  # type: ignore[method-assign]
    try:
        with timed(url) as store:
            reasoner = create_reasoner(model, store=store)
            for number in range(2):
                reasoner.invoke({"messages": [{"role": "user", "content": _problem(problems + number)}]})
            for clock in (*clocks.values(), beside):
                clock.spent = 0.0
            begun = time.perf_counter()
            for number in range(problems):
                reasoner.invoke({"messages": [{"role": "user", "content": _problem(number)}]})
            whole = time.perf_counter() - begun
            store.flush()
    finally:
        Writer._commit = real  # type: ignore[method-assign]
    waits = {name: clock.spent / problems for name, clock in clocks.items()}
    wait = sum(waits.values())
    return {
        "problems": problems,
        "seconds": whole / problems,
        "wait": wait,
        "waits": waits,
        "writer_cpu": beside.spent / problems,
        "share": wait * problems / whole,
        "share_of_writer": beside.spent / whole,
        "target": TARGET,
    }


class _Clock:
    """Adds up what a method takes."""

    def __init__(self, method: Callable[..., Any], now: Callable[[], float]) -> None:
        self.spent = 0.0

        def call(*given: Any, **named: Any) -> Any:
            begun = now()
            try:
                return method(*given, **named)
            finally:
                self.spent += now() - begun

        self.call = call


def _problem(number: int) -> str:
    return f"Find the value of x in the equation: {number + 3}*x + 4 = {(number + 3) * 7 + 4}"


def _bulk(episode_id: str) -> Episode:
    steps = [make_step(index, **_part(index, BULK_STEPS)) for index in range(BULK_STEPS)]
    own = {"answer": "47", "correct": True, "status": "completed", "created_at": datetime.now(UTC)}
    return make_episode(episode_id, steps=steps, **own)


def _write(store: EpisodeStore, episode_id: str) -> None:
    store.begin(make_episode(episode_id, steps=[], events=[], interventions=[], created_at=datetime.now(UTC)))
    for index in range(STEPS):
        store.add(episode_id, make_step(index, **_part(index, STEPS)))
    store.finish(episode_id, status="completed", answer="47", correct=True)


def _part(index: int, count: int) -> dict[str, Any]:
    kind = "prompt" if index == 0 else "answer" if index == count - 1 else "think"
    return {
        "kind": kind,
        "text": "</think>47" if kind == "answer" else "a step of thinking, some forty tokens long as a rule\n\n",
        "start": index * TOKENS,
        "ids": [index] * TOKENS,
        "provenance": [("prompt" if index == 0 else "model", TOKENS)],
        "logprobs": [] if index == 0 else [-0.25] * TOKENS,
    }


def _seconds(work: Callable[[int], Any], *, rounds: int = _ROUNDS, each: int = _EPISODES) -> float:
    taken = []
    for number in range(rounds):
        begun = time.perf_counter()
        for one in range(number * each, (number + 1) * each):
            work(one)
        taken.append((time.perf_counter() - begun) / each)
    return statistics.median(taken)


def _keep(found: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
