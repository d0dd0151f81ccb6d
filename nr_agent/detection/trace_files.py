"""Traces in a file, a line each, behind a line that names what they were made for."""

from __future__ import annotations

import json
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
    lines = [{"key": key}, *(asdict(t) | {"problem": t.problem.model_dump()} for t in traces)]
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    partial.replace(path)


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
