"""What can be written to a store: small operations, each of which may be applied twice without harm."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import JSON, Connection, Table, Text, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from nr_agent.episode import Episode, Step, measure_usage
from nr_agent.errors import NotFoundError
from nr_agent.store.cleaning import clean_text
from nr_agent.store.columns import SafeJSON, SafeText
from nr_agent.store.records import (
    episode_row,
    event_of,
    intervention_of,
    own_values,
    payload,
    step_of,
    strict_values,
)
from nr_agent.store.schema import EpisodeRow, FailureEventRow, InterventionRow, RunRow, StepRow
from nr_agent.store.statements import Statement

Kind = Literal["begin", "step", "event", "intervention", "discard", "finish"]

EPISODES: Table = EpisodeRow.__table__  # type: ignore[assignment] # declared as the wider FromClause
STEPS: Table = StepRow.__table__  # type: ignore[assignment]
EVENTS: Table = FailureEventRow.__table__  # type: ignore[assignment]
RUNS: Table = RunRow.__table__  # type: ignore[assignment]
INTERVENTIONS: Table = InterventionRow.__table__  # type: ignore[assignment]

_PARTS: dict[Kind, Table] = {"step": STEPS, "event": EVENTS, "intervention": INTERVENTIONS}
_KEPT: dict[Kind, tuple[str, ...]] = {"step": (), "event": ("ordinal",), "intervention": ("ordinal",)}
_FIELDS = ("kind", "episode_id", "values", "ordinal")

ENDED = ("completed", "failed", "interrupted", "abandoned")
RESUMED = ("waiting", "abandoned")
"""An episode that stands so runs again as soon as somebody writes into it."""


class Operation:
    """One thing to write.

    Args:
        kind: what.
        episode_id: in which episode.
        values: strict JSON values; or, with `strict=False`, a record's that nobody else holds.
        ordinal: increases with every operation of a process; keeps events and interventions in order.
        strict: False makes the values strict when they are first asked for, which whoever writes them does.
        step: a copy of a step that nobody else holds, instead of values.
    """

    __slots__ = ("_strict", "_values", "episode_id", "kind", "ordinal", "step")

    def __init__(
        self,
        kind: Kind,
        episode_id: str,
        values: dict[str, Any],
        ordinal: int = 0,
        *,
        strict: bool = True,
        step: Step | None = None,
    ) -> None:
        self.kind = kind
        self.episode_id = episode_id
        self.ordinal = ordinal
        self.step = step
        self._values = values
        self._strict = strict

    @property
    def values(self) -> dict[str, Any]:
        """Strict JSON values. Those of a step are made when they are asked for, and not held beside it."""
        if self.step is not None:
            return strict_values(own_values(self.step))
        if not self._strict:
            # Two threads may come here at once: it is the same for both.
            self._values, self._strict = strict_values(self._values), True
        return self._values

    @property
    def key(self) -> Any:
        """Of a step, an event or an intervention: what names it in its episode."""
        if self.kind == "step":
            return self._values["index"] if self.step is None else self.step.index
        return clean_text(self._values["id"])

    def changed(self, **values: Any) -> Operation:
        """With other values."""
        return Operation(self.kind, self.episode_id, self.values | values, self.ordinal)

    def to_json(self) -> str:
        """On one line."""
        parts = {name: getattr(self, name) for name in _FIELDS}
        return json.dumps(parts, ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Operation:
        """Read from a line.

        Raises:
            ValueError: the line is no operation.
        """
        values = json.loads(line)
        if not isinstance(values, dict) or set(values) != set(_FIELDS):
            raise ValueError("no operation")
        return cls(**values)


def apply(connection: Connection, operation: Operation) -> bool:
    """Write an operation.

    Returns:
        Whether it began an episode that was not there.

    Raises:
        NotFoundError: the episode that it finishes is not there.
        sqlalchemy.exc.SQLAlchemyError: the database refused.
    """
    if operation.kind == "begin":
        return _begin(connection, operation.values)
    if operation.kind == "finish":
        _finish(connection, operation)
    elif operation.kind == "discard":
        chosen = (STEPS.c.episode_id == operation.episode_id) & STEPS.c["index"].in_(operation.values["steps"])
        connection.execute(update(STEPS).where(chosen).values(discarded=True))
    else:
        _write_parts(connection, [operation])
    return False


def apply_all(connection: Connection, batch: Iterable[Operation]) -> tuple[set[str], set[str]]:
    """Write operations, as if one after another.

    Returns:
        The episodes that were begun and were not there, and those that were begun and were.

    Raises:
        NotFoundError: an episode that is finished is not there.
        sqlalchemy.exc.SQLAlchemyError: the database refused.
    """
    new, again = set[str](), set[str]()
    # Steps go together as far as they can, and so do events: a statement costs more than a row. Only what comes of
    # steps, whether they are discarded and how they count, must wait for them.
    parts: list[Operation] = []
    for operation in batch:
        if operation.kind in _PARTS:
            parts.append(operation)
            continue
        if operation.kind != "begin" and any(part.episode_id == operation.episode_id for part in parts):
            _write_parts(connection, parts)
            parts = []
        if apply(connection, operation):
            new.add(operation.episode_id)
        elif operation.kind == "begin":
            again.add(operation.episode_id)
    _write_parts(connection, parts)
    return new, again


def _write_parts(connection: Connection, parts: list[Operation]) -> None:
    rows: dict[tuple[Kind, tuple[str, ...]], list[dict[str, Any]]] = {}
    for part in parts:
        values = {"episode_id": part.episode_id, **part.values}
        if part.kind != "step":
            values["ordinal"] = part.ordinal
        rows.setdefault((part.kind, tuple(values)), []).append(values)
    for (kind, columns), together in rows.items():
        _upserting(connection.dialect.name, _PARTS[kind], columns, _KEPT[kind]).run(connection, together)


def overlay(episode: Episode | None, operation: Operation) -> Episode | None:
    """The episode as it would be once the operation is written."""
    values = operation.values
    if operation.kind == "begin":
        head = {name: values[name] for name in Episode.model_fields} | {
            "created_at": _moment(values["created_at"]),
            "ended_at": _moment(values["ended_at"]),
        }
        if episode is not None:
            head |= {"steps": episode.steps, "events": episode.events, "interventions": episode.interventions}
        return Episode.model_validate(head)
    if episode is None:
        return None
    change: dict[str, Any]
    if operation.kind == "step":
        steps = {step.index: step for step in episode.steps} | {values["index"]: step_of(values)}
        change = {"steps": [steps[index] for index in sorted(steps)]}
    elif operation.kind == "event":
        events = {event.id: event for event in episode.events} | {values["id"]: event_of(values)}
        change = {"events": sorted(events.values(), key=lambda one: one.step)}
    elif operation.kind == "intervention":
        known = {one.id: one for one in episode.interventions} | {values["id"]: intervention_of(values)}
        change = {"interventions": sorted(known.values(), key=lambda one: one.step)}
    elif operation.kind == "discard":
        given_up = set(values["steps"])
        steps_now = [
            step.model_copy(update={"discarded": True}) if step.index in given_up else step for step in episode.steps
        ]
        change = {"steps": steps_now}
    else:
        usage = values["usage"] or measure_usage(episode.steps).model_dump()
        change = {**values, "usage": type(episode.usage)(**usage), "ended_at": _moment(values["ended_at"])}
    return episode.model_copy(update=change)


def _begin(connection: Connection, values: dict[str, Any]) -> bool:
    head = {**episode_row(values), "owner": values["owner"], "heartbeat_at": _moment(values["heartbeat_at"])}
    # Records that were set aside by an older version know neither.
    run = values.get("run")
    if run is not None:
        _upsert(connection, RUNS, {**run, "started_at": _moment(run["started_at"])}, keep=tuple(run))
    if run is not None or values.get("run_id") is not None:
        head["run_id"] = values["run_id"] if run is None else run["id"]
    if values.get("kept") is not None:
        head |= {"kept": values["kept"], "problem_hash": values["problem_hash"]}
    if _upsert(connection, EPISODES, head, keep=tuple(head)):
        return True
    _upsert(connection, EPISODES, head, keep=("created_at", "run_id"))
    return False


def _finish(connection: Connection, operation: Operation) -> None:
    values = dict(operation.values)
    usage = values.pop("usage")
    if usage is None:
        rows = connection.execute(select(STEPS).where(STEPS.c.episode_id == operation.episode_id)).mappings()
        usage = payload(measure_usage(step_of(row) for row in rows))
    values |= {f"usage_{name}": number for name, number in usage.items()}
    values["ended_at"] = _moment(values["ended_at"])
    values["heartbeat_at"] = datetime.now(UTC)
    found = _finishing(connection.dialect.name, tuple(values)).run(connection, [{**values, "of": operation.episode_id}])
    if found == 0:
        raise NotFoundError(f"there is no episode {operation.episode_id} to finish", hint="begin it first")


@functools.cache
def _finishing(dialect: str, columns: tuple[str, ...]) -> Statement:
    values = {name: bindparam(name, type_=_of_clean(EPISODES.c[name].type)) for name in columns}
    return Statement(update(EPISODES).where(EPISODES.c.id == bindparam("of")).values(values))


def _upsert(connection: Connection, table: Table, values: dict[str, Any], keep: tuple[str, ...] = ()) -> bool:
    """Insert a row, or bring the one with this key up to date, except for the columns to keep.

    Returns:
        Whether a row was written: one that is there and keeps all of its columns is not.
    """
    return _upserting(connection.dialect.name, table, tuple(values), keep).run(connection, [values]) > 0


@functools.cache
def _upserting(dialect: str, table: Table, columns: tuple[str, ...], keep: tuple[str, ...]) -> Statement:
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    insert = insert.values({name: bindparam(name, type_=_of_clean(table.c[name].type)) for name in columns})
    key = [column.name for column in table.primary_key]
    changed = {name: insert.excluded[name] for name in columns if name not in key and name not in keep}
    if not changed:
        return Statement(insert.on_conflict_do_nothing(index_elements=key))
    return Statement(insert.on_conflict_do_update(index_elements=key, set_=changed))


def _of_clean(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type of a column for values that are clean: an operation's are, and twice is once too often."""
    if isinstance(kind, SafeText):
        return Text()
    return JSON().with_variant(JSONB(), "postgresql") if isinstance(kind, SafeJSON) else kind


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
