"""What the episode store costs: its share of an episode, episodes and rows a second, and whether its size matters.

python -m benchmarks.store [--models nano,smollm2] [--small 1000] [--large 200000] [--postgres URL] [--json FILE]

A small and a large store are measured in turn, round by round, so that whatever else the machine does meets both alike.
Without a URL a PostgreSQL server is started for it, where one is installed. With `--keep FOLDER` the SQLite files (with
a URL also the databases on the server) stay, and are found again the next time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.store_server import new_database, postgres_server
from benchmarks.store_share import Share
from nr_agent.episode import Episode
from nr_agent.export import export
from nr_agent.store import EpisodeFilter, EpisodeStore
from nr_agent.store.care import read_status
from nr_agent.testing.store_suite import make_episode, make_step

STEPS, TOKENS = 20, 40
"""Of an episode whose writing is timed."""

BULK_STEPS = 6
"""Of an episode that a store grows by."""

SIZES = ("small", "large")

_COMMIT = "UPDATE schema_info SET opened_at = opened_at"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write it as JSON if asked."""
    options = _read(arguments)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(options.keep or stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        places = {"sqlite": {size: str(folder / f"{size}.db") for size in SIZES}}
        server = options.postgres or stack.enter_context(postgres_server())
        if server is not None:
            places["postgresql"] = {size: new_database(server, f"nr_store_{size}") for size in SIZES}
        for name in options.only.split(",") if options.only else places:
            found[name] = compare(name, places[name], options)
            if options.json is not None:
                options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def compare(name: str, urls: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """Fill two stores, measure both in turn, and say how many times as long everything takes in the large one."""
    filled = {size: _fill(f"{name}, {size}", urls[size], getattr(options, size)) for size in SIZES}
    rounds: dict[str, list[dict[str, float]]] = {size: [] for size in SIZES}
    shares: dict[str, dict[str, Share]] = {size: {} for size in SIZES}
    with ExitStack() as stack:
        stores = {size: stack.enter_context(EpisodeStore(urls[size])) for size in SIZES}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for size in SIZES:
            shares[size] = {model: Share(model, stores[size]) for model in options.models.split(",") if model}
            _write(stores[size], f"{time.time_ns()}-warm")
        for number in range(options.rounds):
            for size in SIZES if number % 2 else SIZES[::-1]:
                rounds[size].append(_round(stores[size], shares[size], number, options, folder / f"{number}-{size}"))
            sys.stderr.write(f"{name}: round {number + 1} of {options.rounds}\n")
    seconds = {size: _medians(rounds[size]) for size in SIZES}
    return {
        "episodes": {size: getattr(options, size) for size in SIZES},
        "filled_in": filled,
        "seconds": seconds,
        "episodes_per_second": {size: 1 / seconds[size]["write"] for size in SIZES},
        "rows_per_second": {size: 1 / seconds[size]["export_row"] for size in SIZES},
        "share": {size: {model: one.found for model, one in shares[size].items()} for size in SIZES},
        "ratio": {
            what: _ratio([small[what] for small in rounds["small"]], [large[what] for large in rounds["large"]])
            for what in seconds["small"]
        },
    }


def _round(
    store: EpisodeStore, shares: dict[str, Share], number: int, options: argparse.Namespace, folder: Path
) -> dict[str, float]:
    """Seconds to write, read, find and export an episode, to wait for the store in one, and to commit nothing."""
    prefix, each = f"n{time.time_ns()}", options.each
    newest = EpisodeFilter(limit=options.rows)
    seconds = {
        "commit": _seconds(lambda _: _commit_nothing(store), each),
        "write": _seconds(lambda n: _write(store, f"{prefix}-{n}"), each),
        "get": _seconds(lambda n: store.get(f"{prefix}-{n}"), each),
        "find": _seconds(lambda _: list(store.find(EpisodeFilter(limit=20))), each),
    }
    with _timed() as whole:
        count = sum(1 for _ in store.find(EpisodeFilter(correct=True)))
    seconds["find_each"] = whole[0] / count
    with _timed() as whole:
        rows = export(store, folder, format="pretokenized", files="jsonl", filter=newest).rows
    seconds["export_row"] = whole[0] / rows
    for model, one in shares.items():
        seconds[f"wait_{model}"] = one.solve(number * options.problems, options.problems)
    return seconds


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", default="nano", help="whose episodes are looked at, separated by commas; '' for none"
    )
    parser.add_argument("--small", type=int, default=1000, help="episodes in the small store")
    parser.add_argument("--large", type=int, default=200_000, help="and in the large one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--each", type=int, default=40, help="episodes that are written and read in a round")
    parser.add_argument("--problems", type=int, default=4, help="problems that each model solves in a round")
    parser.add_argument("--rows", type=int, default=1000, help="rows that are exported in a round: the newest")
    parser.add_argument("--postgres", help="URL on a server where databases may be made")
    parser.add_argument("--only", help="sqlite or postgresql; both by default")
    parser.add_argument("--keep", type=Path, help="folder for the stores, so that they are filled once only")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def _fill(name: str, url: str, size: int) -> float:
    """Add episodes until there are that many; gives the seconds that took."""
    with EpisodeStore(url) as store, _timed() as whole:
        for number in range(sum(read_status(url).episodes.values()), size):
            store.begin(_bulk(f"g{number:07}"), wait=False)
        store.flush()
    sys.stderr.write(f"{name}: {size} episodes after {whole[0]:.0f} s\n")
    return whole[0]


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}


def _ratio(small: list[float], large: list[float]) -> dict[str, float]:
    """Large over small, round by round: the median, the least and the most."""
    ratios = [more / less for less, more in zip(small, large, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


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


def _commit_nothing(store: EpisodeStore) -> None:
    """The least that a commit takes here: what the database and the disk need, whatever is written."""
    with store._database.write() as connection:
        connection.exec_driver_sql(_COMMIT)


def _seconds(work: Callable[[int], Any], count: int) -> float:
    with _timed() as whole:
        for number in range(count):
            work(number)
    return whole[0] / count


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Its one number is the seconds that the block took."""
    whole, begun = [0.0], time.perf_counter()
    yield whole
    whole[0] = time.perf_counter() - begun


if __name__ == "__main__":
    main()
