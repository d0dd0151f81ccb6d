"""The episode store: begin, add, finish; get, find."""

from __future__ import annotations

import itertools
import sys
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError

from nr_agent.episode import Episode, EpisodeStatus, Intervention, Step, StopReason, Usage
from nr_agent.errors import NotFoundError, StoreError
from nr_agent.events import FailureEvent
from nr_agent.settings import load_settings
from nr_agent.store import operations, standing
from nr_agent.store.annotations import this_run
from nr_agent.store.cleaning import clean_json, clean_text
from nr_agent.store.copies import own_step
from nr_agent.store.database import Database, is_transient
from nr_agent.store.filters import EpisodeFilter, EpisodeSummary, select_newest, select_summaries, summary_of
from nr_agent.store.live import Live
from nr_agent.store.notes import Notes
from nr_agent.store.operations import ENDED, EPISODES, Kind, Operation
from nr_agent.store.privacy import Privacy, Redactor
from nr_agent.store.reading import load_episode, not_found, reading, resolve
from nr_agent.store.records import hash_problem, own_values, payload
from nr_agent.store.spool import spool_of
from nr_agent.store.upgrades import prepare
from nr_agent.store.writer import OnError, Writer

_PAGE = 200
_HEARTBEAT = 60.0
_REMEMBERED = 256  # running episodes that are put together without the database
_KNOWN = 10_000  # ids that need not be looked up; of others the database is asked


class EpisodeStore(Notes):
    """Keeps episodes in SQLite or PostgreSQL. All methods may be called from any thread.

    Everything is idempotent: what is written twice is there once. `begin` and `finish` return after the commit;
    `add` and `discard` return at once, and are written in order by one thread.

    When the database fails in the middle of an episode, what it will not take is kept in a file beside it and
    written the next time the store is opened, so that thinking goes on; `get` shows it all the same.

    Args:
        url: a path or an SQLAlchemy URL; by default the one of the settings.
        on_error: `spool` as described, or `raise` a StoreError to the next caller.
        create: make the database if there is none.
        busy_timeout: seconds to wait for another process that writes.
        capacity: records that may wait to be written; `add` waits for room.
        redact: gives a text back without what must not be kept; it sees every text before anything is queued.
        keep_text: False keeps no text and no token ids, only numbers, kinds and hashes; by default the setting.
        run: name of the run that the episodes begun here belong to.
        config: whatever is to be noted about that run.

    Raises:
        StoreError: the store cannot be opened for writing.
        SchemaVersionError: it was written by a newer library.

    Example:
        >>> from nr_agent.episode import Episode, Problem
        >>> with EpisodeStore.in_memory() as store:
        ...     store.begin(Episode(id="e1", problem=Problem(text="2+2?")))
        ...     store.finish("e1", status="completed", answer="4", correct=True)
        ...     store.get("e1").answer
        '4'
    """

    def __init__(
        self,
        url: str | Path | None = None,
        *,
        on_error: OnError = "spool",
        create: bool = True,
        busy_timeout: float = 30.0,
        capacity: int = 2000,
        redact: Redactor | None = None,
        keep_text: bool | None = None,
        run: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._options = {
            "on_error": on_error,
            "busy_timeout": busy_timeout,
            "capacity": capacity,
            "redact": redact,
            "keep_text": keep_text,
            "run": run,
            "config": config,
        }
        settings = load_settings()
        self._privacy = Privacy(redact, keep_text=settings.keep_text if keep_text is None else keep_text)
        # An episode is remembered until it has ended or, where the database has all of it, is laid aside.
        self._settled = (*ENDED, "waiting") if self._privacy.keeps_everything else ENDED
        self._live = Live(most=_REMEMBERED if self._privacy.keeps_everything else None)
        self._run = payload(this_run(run, self._privacy.values(clean_json(config))))
        del self._run["episodes"]
        self._location = settings.store_url if url is None else url
        self._database = Database(self._location, busy_timeout=busy_timeout)
        spool = spool_of(self._database)
        self._database.make_place(create=create)
        try:
            prepare(self._database)
            if spool is not None:
                spool.replay(self._replay)
            with self._database.write() as connection:
                standing.give_up_lost(connection)
        except (SQLAlchemyError, OSError) as error:
            self._database.dispose()
            raise self._database.unusable("opened", error) from error
        except BaseException:
            self._database.dispose()
            raise
        self._writer = Writer(self._database, spool=spool, on_error=on_error, capacity=capacity, heartbeat=_HEARTBEAT)
        self._known: set[str] = set()
        self._ordinals = itertools.count(time.time_ns() // 1000)
        # Also runs at the interpreter's end, so nothing that was queued is lost when nobody calls close().
        self._finalizer = weakref.finalize(self, _close_quietly, self._writer)

    @classmethod
    def in_memory(cls) -> Self:
        """A store that is gone when it is closed. A forked child gets an empty one."""
        return cls(":memory:")

    @property
    def location(self) -> str:
        """Where it is: a path, or a URL without its password."""
        return self._database.label

    def begin(self, episode: Episode, *, wait: bool = True) -> None:
        """Begin an episode, or write one down that is there as a whole. Returns after the commit.

        Args:
            episode: to begin.
            wait: False returns at once; it is written as soon as that can be done.

        Raises:
            StoreError: (`on_error="raise"`) it could not be written.
        """
        now = datetime.now(UTC)
        head = episode.model_copy(
            update={
                "created_at": episode.created_at or now,
                **{"steps": [], "events": [], "interventions": []},
            }
        )
        parts = [*episode.steps, *episode.events, *episode.interventions]
        self._put([self._begin(head, now), *(self._addition(episode.id, part) for part in parts)], wait=wait, soon=True)
        if head.status not in ENDED:
            self._know(episode.id)

    def add(self, episode_id: str, *records: Step | FailureEvent | Intervention) -> None:
        """Write steps, events and interventions down; one that is there is replaced. Returns at once.

        Raises:
            NotFoundError: the episode was never begun.
            StoreError: (`on_error="raise"`) something before it could not be written.
        """
        self._check_known(episode_id)
        self._put([self._addition(episode_id, record) for record in records])

    def discard(self, episode_id: str, steps: Iterable[int]) -> None:
        """Mark steps as not part of the final sequence. Returns at once.

        Raises:
            NotFoundError: the episode was never begun.
        """
        self._check_known(episode_id)
        if indices := sorted({int(step) for step in steps}):
            operation = self._operation("discard", episode_id, {"steps": indices})
            self._put([(operation, operation)])

    def finish(
        self,
        episode_id: str,
        *,
        status: EpisodeStatus,
        stop_reason: StopReason | None = None,
        answer: str | None = None,
        correct: bool | None = None,
        usage: Usage | None = None,
        error: str | None = None,
    ) -> None:
        """Close an episode, or (status `waiting`) lay it aside. Returns after the commit.

        Args:
            episode_id: the episode.
            status: how it stands now.
            stop_reason: why the thinking ended.
            answer: that was given.
            correct: whether it is right, where that is known.
            usage: where the tokens went; counted from the steps by default.
            error: what went wrong.

        Raises:
            NotFoundError: the episode was never begun.
            StoreError: (`on_error="raise"`) it, or something before it, could not be written.
        """
        self._check_known(episode_id)
        values = {
            "status": status,
            "stop_reason": stop_reason,
            "answer": self._privacy.optional(answer),
            "correct": correct,
            "usage": None if usage is None else payload(usage),
            "error": self._privacy.optional(error),
            "ended_at": datetime.now(UTC).isoformat() if status in ENDED else None,
        }
        operation = self._operation("finish", episode_id, clean_json(values))
        self._put([(operation, operation)], wait=True)
        self._known.discard(episode_id)

    def get(self, episode_id: str) -> Episode:
        """The whole episode, with everything that was added so far.

        Args:
            episode_id: its id, the beginning of it if no other begins so, or `last`.

        Raises:
            NotFoundError: there is none, or more than one.
            StoreError: the database cannot be read.
        """
        if self._writer.began(episode_id) and (live := self._live.get(episode_id)) is not None:
            if live.thread_id is None:
                return live
            # Whoever has its checkpoint may have gone on with it.
            with reading(self._database) as connection:
                if standing.is_at(connection, episode_id, owner=self._writer.owner):
                    return live
            self._writer.let_go(episode_id)
            self._live.drop(episode_id)
        self._writer.flush()
        with reading(self._database) as connection:
            exact = resolve(connection, episode_id, self._writer.episodes_aside)
            if not self._privacy.keeps_everything and (live := self._live.get(exact)) is not None:
                # Whoever thinks it needs all of it until it has ended, whatever is kept of it in the end.
                return live
            episode = load_episode(connection, exact)
        for operation in self._writer.aside(exact):
            episode = operations.overlay(episode, operation)
        if episode is None:
            raise not_found(episode_id)
        return episode

    def steps(self, episode_id: str) -> list[Step]:
        """The steps of an episode, in order.

        Raises:
            NotFoundError: there is no such episode.
        """
        return self.get(episode_id).steps

    def find(self, wanted: EpisodeFilter | None = None) -> Iterator[EpisodeSummary]:
        """The episodes that a filter lets through, newest first; without those that only `get` sees.

        Raises:
            StoreError: the database cannot be read.
        """
        self._writer.flush()
        with reading(self._database) as connection:
            ids = [row.id for row in connection.execute(select_newest(wanted or EpisodeFilter()))]
        for start in range(0, len(ids), _PAGE):
            with reading(self._database) as connection:
                rows = connection.execute(select_summaries(ids[start : start + _PAGE])).mappings().all()
            yield from map(summary_of, rows)

    def delete(self, episode_ids: Iterable[str]) -> int:
        """Delete episodes with all that belongs to them, together or not at all; those that run or wait stay.

        Returns:
            How many were there and are gone.

        Raises:
            StoreError: the database cannot be written.
        """
        self._writer.flush()
        gone, ids = 0, sorted(set(episode_ids))
        try:
            with self._database.write() as connection:
                for start in range(0, len(ids), _PAGE):
                    chosen = EPISODES.c.id.in_(ids[start : start + _PAGE]) & EPISODES.c.status.in_(ENDED)
                    gone += connection.execute(delete(EPISODES).where(chosen)).rowcount
        except SQLAlchemyError as error:
            raise self._database.unusable("written", error) from error
        self._known.difference_update(ids)
        return gone

    def flush(self, *, wait: bool = True) -> None:
        """Wait until everything that was added is committed, or (`wait=False`) only see that it is begun.

        Raises:
            StoreError: (`on_error="raise"`) something could not be written.
        """
        self._writer.flush() if wait else self._writer.put([], soon=True)

    def close(self) -> None:
        """Write what is queued and close the database. Closing twice is no error.

        Raises:
            StoreError: something could not be written anywhere.
        """
        if self._finalizer.detach() is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._database.in_memory:
            raise StoreError("a store in memory cannot be sent to another process", hint="use a file")
        return _reopen, (type(self), self._location, self._options)

    def _operation(self, kind: Kind, episode_id: str, values: dict[str, Any]) -> Operation:
        return Operation(kind, clean_text(episode_id), values, next(self._ordinals))

    def _put(self, batch: list[tuple[Operation, Operation]], *, wait: bool = False, soon: bool = False) -> None:
        """Queue operations, each as it is and as it is kept; what is looked at from now on is the first."""
        self._writer.put([kept for _, kept in batch], wait=wait, soon=soon, queued=lambda: self._note(batch))

    def _note(self, batch: list[tuple[Operation, Operation]]) -> None:
        for operation, _ in batch:
            if operation.kind in ("begin", "finish") and operation.values["status"] in self._settled:
                self._live.drop(operation.episode_id)
            else:
                self._live.take(operation)

    def _addition(self, episode_id: str, record: Step | FailureEvent | Intervention) -> tuple[Operation, Operation]:
        kind: Kind = "intervention"
        if isinstance(record, Step):
            kind = "step"
        elif isinstance(record, FailureEvent):
            kind = "event"
        if type(record) is Step:
            whole = Operation(kind, clean_text(episode_id), {}, next(self._ordinals), step=own_step(record))
        else:
            values = own_values(record)
            whole = Operation(kind, clean_text(episode_id), values, next(self._ordinals), strict=False)
        kept = self._privacy.record(record)
        return whole, whole if kept is record else Operation(kind, whole.episode_id, payload(kept), whole.ordinal)

    def _begin(self, head: Episode, now: datetime) -> tuple[Operation, Operation]:
        beside: dict[str, Any] = {"owner": self._writer.owner, "heartbeat_at": now.isoformat(), "run": self._run}
        whole = self._operation("begin", head.id, payload(head) | beside)
        if self._privacy.keeps_everything:
            return whole, whole
        beside |= {"kept": self._privacy.kept, "problem_hash": hash_problem(head.problem.text)}
        return whole, whole.changed(**payload(self._privacy.head(head)), **beside)

    def _check_known(self, episode_id: str) -> None:
        """An unknown episode is the caller's mistake, and is told to the caller rather than to the writer."""
        if episode_id in self._known or self._writer.aside(episode_id):
            return
        self._writer.flush()  # it may be on its way
        try:
            with self._database.read() as connection:
                found = connection.execute(select(EPISODES.c.id).where(EPISODES.c.id == episode_id)).first()
        except SQLAlchemyError as error:
            if not is_transient(error):
                raise self._database.unusable("read", error) from error
            return  # the writer knows what to do about it
        if found is None:
            raise not_found(episode_id)
        self._know(episode_id)

    def _know(self, episode_id: str) -> None:
        self._known = self._known if len(self._known) < _KNOWN else set()
        self._known.add(episode_id)

    def _replay(self, operation: Operation) -> None:
        try:
            with self._database.write() as connection:
                operations.apply(connection, operation)
        except (SQLAlchemyError, NotFoundError, KeyError, TypeError, OverflowError) as error:
            if is_transient(error):
                raise
            raise ValueError(str(error).splitlines()[0]) from error


def _reopen(kind: type[EpisodeStore], location: str | Path, options: dict[str, Any]) -> EpisodeStore:
    return kind(location, **options)


def _close_quietly(writer: Writer) -> None:
    try:
        writer.close()
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
