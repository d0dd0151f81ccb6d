"""Column types: what is stored is packed, cleaned and in UTC, whoever writes it."""

from __future__ import annotations

import array
import sys
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from nr_agent.store.cleaning import clean_json, clean_text

_NAN = float("nan")


class SafeText(TypeDecorator[str]):
    """Text without NUL and lone surrogates."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean it."""
        return None if value is None else clean_text(value)


class SafeJSON(TypeDecorator[Any]):
    """Strict JSON: `JSONB` on PostgreSQL, text elsewhere."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type for a dialect."""
        return dialect.type_descriptor(JSONB() if dialect.name == "postgresql" else JSON())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Clean it."""
        return clean_json(value)


class WholeNumber(TypeDecorator[int]):
    """An integer of any size, as text: seeds may have 64 bits without a sign."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        """As decimal digits."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        """As a number again."""
        return None if value is None else int(value)


class UtcTime(TypeDecorator[datetime]):
    """A point in time: UTC in the database, aware in Python. A naive one is taken as UTC."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """With a time zone where the database knows them."""
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; SQLite has no zones."""
        if value is None:
            return None
        moment = in_utc(value)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """With its zone."""
        return None if value is None else in_utc(value)


class TokenIds(TypeDecorator[list[int]]):
    """Token ids as little-endian int32."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: list[int] | None, dialect: Dialect) -> bytes | None:
        """Packed."""
        return None if value is None else _bytes(array.array("i", value))

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> list[int] | None:
        """As a list again."""
        return None if value is None else _unpack("i", value).tolist()


class Logprobs(TypeDecorator[list[float | None]]):
    """Log-probabilities as little-endian float32; NaN stands for None."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: list[float | None] | None, dialect: Dialect) -> bytes | None:
        """Packed."""
        return None if value is None else _to_floats(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> list[float | None] | None:
        """As a list again."""
        return None if value is None else _from_floats(value)


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; a naive one is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def as_stored(logprobs: list[float | None]) -> list[float | None]:
    """Log-probabilities as they are read back: rounded to float32."""
    return [None if number != number else number for number in _floats(logprobs)]


def _to_floats(value: list[float | None]) -> bytes:
    return _bytes(_floats(value))


def _floats(value: list[float | None]) -> array.array[float]:
    return array.array("f", [_NAN if number is None else number for number in value])


def _from_floats(value: bytes) -> list[float | None]:
    return [None if number != number else number for number in _unpack("f", value)]  # NaN is not itself


def _bytes(packed: array.array[Any]) -> bytes:
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _unpack(code: str, value: bytes) -> array.array[Any]:
    unpacked: array.array[Any] = array.array(code)
    unpacked.frombytes(bytes(value))
    if sys.byteorder == "big":
        unpacked.byteswap()
    return unpacked
