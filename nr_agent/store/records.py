"""Records to plain JSON payloads and rows, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import RowMapping

from nr_agent.episode import Episode, Intervention, Problem, Record, Step, Usage
from nr_agent.events import AnyFailureEvent, FailureEvent
from nr_agent.store.cleaning import clean_json, clean_text
from nr_agent.store.columns import in_utc

Values = Mapping[str, Any] | RowMapping
"""Columns by name, of a payload or of a row."""

_USAGE = ("prompt", "thinking", "answer", "inserted", "discarded")
_HEAD = (
    "id",
    "status",
    "stop_reason",
    "answer",
    "correct",
    "model",
    "fingerprint",
    "detector",
    "policy",
    "seed",
    "settings",
    "error",
    "thread_id",
)
_NAN = float("nan")
_UNCLEAN = (b"NaN", b"Infinity", b"\\u0000")


def payload(record: Record | FailureEvent) -> dict[str, Any]:
    """A record as strict JSON values; times in UTC, as ISO 8601."""
    values: dict[str, Any] = clean_json(_with_iso_times(record.model_dump(mode="python")))
    return values


def own_values(record: Record | FailureEvent) -> dict[str, Any]:
    """A record's values, none of which it shares; not yet strict, which takes longer."""
    return record.model_dump(mode="python")


def strict_values(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a step, an event or an intervention as strict JSON values."""
    try:
        written = to_json(values, inf_nan_mode="constants")
    except ValueError:  # half a character, or what no field of these records should hold
        return _cleaned(values)
    return _cleaned(values) if any(sign in written for sign in _UNCLEAN) else values


def _cleaned(values: dict[str, Any]) -> dict[str, Any]:
    cleaned: dict[str, Any] = clean_json(values)
    return cleaned


def episode_row(head: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an episode's payload."""
    problem, usage = head["problem"], head["usage"]
    return {
        **{name: head[name] for name in _HEAD},
        "problem_text": problem["text"],
        "problem_hash": hash_problem(problem["text"]),
        "problem_reference": problem["reference"],
        "problem_seed": problem["seed"],
        "problem_metadata": problem["metadata"],
        "domain": problem["domain"],
        "task": problem["task"],
        **{f"usage_{name}": usage[name] for name in _USAGE},
        "created_at": _moment(head["created_at"]),
        "ended_at": _moment(head["ended_at"]),
    }


def episode_of(
    row: Values, steps: list[Step], events: list[AnyFailureEvent], interventions: list[Intervention]
) -> Episode:
    """The episode of a row and its parts."""
    problem = Problem(
        text=row["problem_text"],
        reference=row["problem_reference"],
        domain=row["domain"],
        task=row["task"],
        seed=row["problem_seed"],
        metadata=row["problem_metadata"],
    )
    return Episode(
        **{name: row[name] for name in _HEAD},
        problem=problem,
        usage=usage_of(row),
        steps=steps,
        events=events,
        interventions=interventions,
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )


def usage_of(row: Values) -> Usage:
    """The usage of an episode's row."""
    return Usage(**{name: row[f"usage_{name}"] for name in _USAGE})


def step_of(values: Values) -> Step:
    """The step of a payload or a row."""
    fields = {name: values[name] for name in Step.model_fields}
    fields["readings"] = [numbers(reading) for reading in fields["readings"]]
    return Step.model_validate(fields)


def event_of(values: Values) -> AnyFailureEvent:
    """The event of a payload or a row."""
    fields = {name: values[name] for name in FailureEvent.model_fields}
    evidence = dict(fields["evidence"])
    evidence["features"] = numbers(evidence["features"])
    evidence["channels"] = [numbers(channel) for channel in evidence["channels"]]
    return FailureEvent.from_state(fields | {"evidence": evidence})


def intervention_of(values: Values) -> Intervention:
    """The intervention of a payload or a row."""
    return Intervention.model_validate({name: values[name] for name in Intervention.model_fields})


def hash_problem(text: str) -> str:
    """Names a problem by its text: the same problem has the same hash, whoever poses it."""
    return hashlib.sha256(clean_text(text).strip().encode()).hexdigest()


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    """With NaN where JSON had to say None: these fields are numbers."""
    if None not in values.values():
        return values
    return {name: _NAN if value is None else value for name, value in values.items()}


def _with_iso_times(values: dict[str, Any]) -> dict[str, Any]:
    return {name: in_utc(value).isoformat() if type(value) is datetime else value for name, value in values.items()}


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
