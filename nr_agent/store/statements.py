"""Statements as the driver takes them, made once: to look one up among SQLAlchemy's takes longer than to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import Insert, Update

_OPTIONS = {"preserve_rowcount": True}


class Statement:
    """An `INSERT` or `UPDATE`, and what turns the values of its columns into the driver's.

    Args:
        clause: for one kind of database; all of its values are bound parameters.
    """

    def __init__(self, clause: Insert | Update) -> None:
        self._clause = clause
        self._text = ""
        self._positional = False
        self._processors: list[tuple[str, Callable[[Any], Any] | None]] = []

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Carry it out for each of the rows.

        Args:
            connection: to write with.
            rows: values by parameter.

        Returns:
            How many rows of the table were written, where one was given.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database refused.
        """
        if not self._text:
            self._make(connection.dialect)
        given = [self._bind(row) for row in rows]
        one: Any = given if len(given) > 1 else given[0]
        return connection.exec_driver_sql(self._text, one, execution_options=_OPTIONS).rowcount

    def _make(self, dialect: Dialect) -> None:
        compiled = self._clause.compile(dialect=dialect)
        self._positional = compiled.positional
        self._processors = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or compiled.binds
        ]
        self._text = str(compiled)

    def _bind(self, row: Mapping[str, Any]) -> tuple[Any, ...] | dict[str, Any]:
        if self._positional:
            return tuple([row[name] if process is None else process(row[name]) for name, process in self._processors])
        return {name: row[name] if process is None else process(row[name]) for name, process in self._processors}
