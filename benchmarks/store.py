"""What the episode store costs: its share of an episode, episodes and rows a second, and whether size matters.

python -m benchmarks.store [--model nano] [--episodes 1000] [--large 200000] [--postgres URL] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nr_agent.export import export
from nr_agent.store import EpisodeFilter, EpisodeStore
from nr_agent.testing.store_suite import make_episode, make_step

STEPS, TOKENS = 20, 40
TARGET = 0.01
"""At most this share of an episode's wall time may be the store's."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--problems", type=int, default=5, help="problems solved for the share; 0 leaves it out")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--large", type=int, default=200_000)
    parser.add_argument("--postgres", help="URL of an empty database; without one PostgreSQL is left out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.problems:
            found["share"] = share(options.model, options.problems, place / "share.db")
        found["sqlite"] = speed(str(place / "speed.db"), options.episodes)
        if options.postgres:
            found["postgresql"] = speed(options.postgres, options.episodes)
        found["growth"] = growth(place, options.episodes, options.large)
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def share(model: str, problems: int, path: Path) -> dict[str, Any]:
    """The store's share of an episode's wall time: seconds inside its methods, over seconds of solving."""
    from nr_agent import create_reasoner  # noqa: PLC0415 - loads torch, and only this needs it

    spent = 0.0

    class Timed(EpisodeStore):
        """Counts the seconds that callers wait for it."""

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal spent
            begun = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                spent += time.perf_counter() - begun

        return call

    for name in ("begin", "add", "discard", "finish", "get"):
        setattr(Timed, name, timed(getattr(EpisodeStore, name)))
    with Timed(path) as store:
        reasoner = create_reasoner(model, store=store)
        reasoner.invoke({"messages": [{"role": "user", "content": "What is 12 + 35?"}]})
        spent, begun = 0.0, time.perf_counter()
        for number in range(problems):
            asked = f"Find the value of x in the equation: {number + 3}*x + 4 = {(number + 3) * 7 + 4}"
            reasoner.invoke({"messages": [{"role": "user", "content": asked}]})
        whole = time.perf_counter() - begun
    return {"problems": problems, "seconds": whole, "share": spent / whole, "target": TARGET}


def speed(url: str, episodes: int) -> dict[str, float]:
    """Episodes a second, each begun, written step by step and finished; and export rows a second."""
    with EpisodeStore(url) as store:
        begun = time.perf_counter()
        for number in range(episodes):
            _write(store, f"s{number:07}")
        written = time.perf_counter() - begun
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            rows = export(store, Path(folder) / "out", format="pretokenized", files="jsonl").rows
            exported = time.perf_counter() - begun
    return {"episodes_per_second": episodes / written, "rows": rows, "rows_per_second": rows / exported}


def growth(place: Path, small: int, large: int) -> dict[str, Any]:
    """How much slower a store of `large` episodes is than one of `small`: 1 is flat."""
    rates: dict[int, dict[str, float]] = {}
    for size in (small, large):
        with EpisodeStore(place / f"growth-{size}.db") as store:
            whole = make_episode("x", status="completed", correct=True)
            for number in range(size):
                # Not one by one: waiting for 200,000 commits would take longer than all that is measured.
                head = whole.model_copy(update={"id": f"g{number:07}", "created_at": _now()})
                parts = [*whole.steps, *whole.events, *whole.interventions]
                store._writer.put([store._begin(head, _now()), *(store._addition(head.id, one) for one in parts)])
            store.flush()
            rates[size] = {
                "write": _seconds(lambda n, store=store: _write(store, f"new{n}"), 50),
                "get": _seconds(lambda n, store=store: store.get(f"new{n}"), 50),
                "find": _seconds(lambda _, store=store: list(store.find(EpisodeFilter(limit=20))), 50),
            }
    ratios = {name: rates[large][name] / rates[small][name] for name in rates[small]}
    return {"small": small, "large": large, "seconds": {str(size): one for size, one in rates.items()}, "ratio": ratios}


def _write(store: EpisodeStore, episode_id: str) -> None:
    whole = make_episode(episode_id, steps=[], created_at=_now())
    store.begin(whole)
    for index in range(STEPS):
        kind = "prompt" if index == 0 else "answer" if index == STEPS - 1 else "think"
        origin = "prompt" if index == 0 else "model"
        text = "</think>47" if kind == "answer" else "a step of thinking\n\n"
        place = {"kind": kind, "start": index * TOKENS, "ids": [index] * TOKENS, "provenance": [(origin, TOKENS)]}
        store.add(episode_id, make_step(index, text=text, **place))
    store.finish(episode_id, status="completed", answer="47", correct=True)


def _seconds(work: Callable[[int], Any], times: int) -> float:
    begun = time.perf_counter()
    for number in range(times):
        work(number)
    return (time.perf_counter() - begun) / times


def _now() -> Any:
    from datetime import UTC, datetime  # noqa: PLC0415 - one line

    return datetime.now(UTC)


if __name__ == "__main__":
    main()
