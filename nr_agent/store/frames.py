"""A store as tables of Arrow and data frames of pandas: for notebooks, and for everything that reads columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import BigInteger, Boolean, Column, Connection, Float, Integer, Table, select

from nr_agent.errors import ConfigurationError, MissingExtraError
from nr_agent.store.annotations import ANNOTATIONS
from nr_agent.store.columns import Logprobs, SafeJSON, TokenIds, UtcTime
from nr_agent.store.filters import EpisodeFilter
from nr_agent.store.operations import EPISODES, EVENTS, INTERVENTIONS, STEPS

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["episodes", "steps", "events", "interventions", "annotations"]

TABLES: Final[dict[str, Table]] = {
    "episodes": EPISODES,
    "steps": STEPS,
    "events": EVENTS,
    "interventions": INTERVENTIONS,
    "annotations": ANNOTATIONS,
}
_INTERNAL = ("owner", "heartbeat_at")
_BATCH = 1000


def read_arrow(connection: Connection, kind: str, wanted: EpisodeFilter) -> pa.Table:
    """One kind of row of the episodes that a filter lets through, in the order of their ids.

    Token ids and log-probabilities are lists, times are in UTC, seeds (which may exceed 64 bits) are text, and what
    has no fixed form is JSON text.

    Raises:
        ConfigurationError: there is no such kind of row.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="export") from error
    table = TABLES.get(kind)
    if table is None:
        raise ConfigurationError(f"there are no rows of {kind!r}", hint=f"choose from: {', '.join(TABLES)}")
    columns = [column for column in table.columns if column.name not in _INTERNAL]
    schema = pa.schema([(column.name, _type(pa, column)) for column in columns])
    batches = (
        pa.RecordBatch.from_pylist([_plain(columns, row) for row in rows], schema=schema)
        for rows in _rows(connection, table, columns, wanted)
    )
    return pa.Table.from_batches(batches, schema=schema)


def _rows(
    connection: Connection, table: Table, columns: list[Column[Any]], wanted: EpisodeFilter
) -> Iterator[list[Any]]:
    own = table.c.id if table is EPISODES else table.c.episode_id
    statement = select(*columns).where(own.in_(wanted.select_ids())).order_by(*_order(table))
    result = connection.execution_options(yield_per=_BATCH).execute(statement)
    for part in result.partitions(_BATCH):
        yield list(part)


def _order(table: Table) -> list[Column[Any]]:
    names = {"steps": ("episode_id", "index"), "failure_events": ("episode_id", "step", "ordinal")}
    names |= {"interventions": ("episode_id", "step", "ordinal"), "annotations": ("episode_id", "created_at", "id")}
    return [table.c[name] for name in names.get(table.name, ("id",))]


def _type(pa: Any, column: Column[Any]) -> Any:
    kinds: list[tuple[type[Any], Any]] = [
        (TokenIds, pa.list_(pa.int32())),
        (Logprobs, pa.list_(pa.float32())),
        (UtcTime, pa.timestamp("us", tz="UTC")),
        (Boolean, pa.bool_()),
        (BigInteger, pa.int64()),
        (Integer, pa.int64()),
        (Float, pa.float64()),
    ]
    return next((arrow for kind, arrow in kinds if isinstance(column.type, kind)), pa.string())


def _plain(columns: list[Column[Any]], row: Any) -> dict[str, Any]:
    return {column.name: _value(column, value) for column, value in zip(columns, row, strict=True)}


def _value(column: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, SafeJSON):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value) if column.name in ("seed", "problem_seed") else value
