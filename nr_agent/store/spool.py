"""Where operations wait that the database would not take: a file of JSON lines, replayed when the store is opened."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nr_agent.settings import load_settings
from nr_agent.store.database import Database
from nr_agent.store.operations import Operation
from nr_agent.store.records import hash_problem

_log = logging.getLogger(__name__)


class Spool:
    """A file beside the database. Several processes may append to it and replay it: it is locked for both."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def refused(self) -> Path:
        """Where records go that the database refuses for what they say."""
        return self.path.with_name(f"{self.path.name}.refused")

    def append(self, operations: Iterable[Operation]) -> None:
        """Add operations, and return when they are on the disk.

        Raises:
            OSError: they could not be written.
        """
        lines = "".join(operation.to_json() + "\n" for operation in operations).encode()
        with self._locked() as file:
            # After a crash in the middle of a line, a new line begins.
            end = os.lseek(file, 0, os.SEEK_END)
            torn = end > 0 and _read_all(file, end - 1) != b"\n"
            _write_all(file, (b"\n" if torn else b"") + lines)
            os.fsync(file)

    def replay(self, write: Callable[[Operation], None]) -> int:
        """Write what is waiting, in order, and empty the file.

        What is no operation, or is refused for what it says, goes to a file of its own.

        Args:
            write: writes one operation; raises ValueError to refuse it for good, anything else to try again later.

        Returns:
            How many were written.
        """
        if not self.path.is_file():
            return 0
        written, refused = 0, []
        with self._locked() as file:
            lines = _read_all(file).splitlines()
            for line in lines:
                try:
                    write(Operation.from_json(line.decode()))
                    written += 1
                except ValueError as error:
                    refused.append(line)
                    _log.warning("%s: a record cannot be replayed (%s)", self.path, error)
            if refused:
                self._set_aside(refused)
            os.ftruncate(file, 0)
        return written

    def _set_aside(self, lines: list[bytes]) -> None:
        with open(self.refused, "ab", opener=_open_for_owner) as file:
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if sys.platform != "win32":
                import fcntl  # noqa: PLC0415 - only where there is one

                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def _open_for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # whole episodes are in there


def spool_of(database: Database) -> Spool | None:
    """The spool of a database; one in memory has none."""
    if database.in_memory:
        return None
    path = database.path
    if path is not None:
        return Spool(path.with_name(f"{path.name}.spool.jsonl"))
    name = hash_problem(database.url.set(password=None).render_as_string())[:16]
    return Spool(load_settings().home.expanduser() / "spool" / f"{name}.jsonl")


def _read_all(file: int, start: int = 0) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    chunks = []
    while chunk := os.read(file, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
