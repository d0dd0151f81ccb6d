"""Traces in a file, a line each, behind a line that names what they were made for."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.episode import Problem
from nr_agent.errors import DetectorError


def write_traces(path: Path, traces: Sequence[Traced], key: str) -> None:
    """Write traces, whole or not at all.

    Args:
        path: the file.
        traces: what to write.
        key: names what they were made with; `kept_traces` asks for it.
    """
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in [{"key": key}, *map(_to_json, traces)]))
    partial.replace(path)


def append_traces(path: Path, traces: Sequence[Traced]) -> None:
    """Write traces behind those of a file that `write_traces` began. A break may leave the last line torn."""
    with path.open("a") as file:
        file.writelines(json.dumps(_to_json(traced)) + "\n" for traced in traces)
        file.flush()
        os.fsync(file.fileno())


def begun_traces(path: Path, key: str) -> list[Traced]:
    """The whole traces of a file that was being appended to, made with the same; none where there are none."""
    try:
        lines = path.read_text().split("\n")[:-1]  # behind the last line's end is what was torn
        if json.loads(lines[0]) == {"key": key}:
            return [from_json(json.loads(line)) for line in lines[1:]]
    except (OSError, IndexError, json.JSONDecodeError):
        pass  # nothing was begun, or nothing that can be gone on from
    return []


def kept_traces(path: Path, key: str) -> list[Traced] | None:
    """The traces of a file that were made with the same; None where there are none."""
    if not path.exists():
        return None
    with path.open() as file:
        if json.loads(next(file)) != {"key": key}:
            return None
        return [from_json(json.loads(line)) for line in file]


def load_traces(path: Path) -> list[Traced]:
    """The traces that an earlier fit left in `traces.jsonl`.

    Raises:
        DetectorError: the file is not there, or holds no traces.
    """
    try:
        with path.open() as file:
            next(file)  # the key of the fit
            return [from_json(json.loads(line)) for line in file]
    except (OSError, StopIteration, json.JSONDecodeError, TypeError, KeyError) as error:
        raise DetectorError(f"{path} holds no traces: {error}", hint="give the folder of a fit") from error


def from_json(value: dict[str, Any]) -> Traced:
    """A trace from the values of its line."""
    steps = [TracedStep(**step) for step in value.pop("steps")]
    return Traced(**(value | {"problem": Problem(**value["problem"]), "steps": steps}))


def _to_json(traced: Traced) -> dict[str, Any]:
    return asdict(traced) | {"problem": traced.problem.model_dump()}
