"""What a store says about its episodes beside what they are: annotations, runs, tables, and what is new."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from nr_agent.errors import NotFoundError
from nr_agent.store.annotations import Annotation, Run, read_annotations, read_runs, write_annotation
from nr_agent.store.database import Database
from nr_agent.store.filters import EpisodeFilter, EpisodeSummary
from nr_agent.store.frames import read_arrow
from nr_agent.store.operations import ENDED, STEPS
from nr_agent.store.privacy import Privacy
from nr_agent.store.reading import reading, resolve
from nr_agent.store.writer import Writer

if TYPE_CHECKING:
    import pyarrow as pa


_DRIFT = timedelta(minutes=10)


class Notes(ABC):
    """Part of the episode store; not for use by itself."""

    _database: Database
    _writer: Writer
    _privacy: Privacy

    @abstractmethod
    def find(self, wanted: EpisodeFilter | None = None) -> Iterator[EpisodeSummary]:
        """The episodes that a filter lets through, newest first."""

    def watch(
        self, wanted: EpisodeFilter | None = None, *, every: float = 1.0, ended: threading.Event | None = None
    ) -> Iterator[EpisodeSummary]:
        """Episodes as they come: those that are there, the oldest first, and then each one whose status changes.

        Args:
            wanted: which episodes; a limit holds for those that are there at the beginning.
            every: seconds between two looks.
            ended: set by another thread to end it.

        Raises:
            StoreError: the database cannot be read.
        """
        ended, wanted = ended or threading.Event(), wanted or EpisodeFilter()
        first = list(self.find(wanted))[::-1]
        known = {one.id: one for one in first}
        if first and wanted.limit is not None:
            # Those that the limit left out are shown when they change, and not before. They are older than the first
            # that is shown: what is newer than that, and not yet known, began in this very moment.
            oldest = (first[0].created_at, first[0].id)
            recent = self._recent(wanted, known.values())
            known = {one.id: one for one in recent if (one.created_at, one.id) < oldest} | known
        yield from first
        while not ended.wait(every):
            for one in self._recent(wanted, known.values()):
                if one.id not in known or known[one.id].status != one.status:
                    known[one.id] = one
                    yield one

    def _recent(self, wanted: EpisodeFilter, known: Collection[EpisodeSummary]) -> list[EpisodeSummary]:
        # What ended long ago changes no more: a look costs as much in a large store as in a small one.
        since = _horizon(known)
        if since is None or (wanted.since is not None and since < wanted.since):
            since = wanted.since
        return list(self.find(wanted.model_copy(update={"limit": None, "since": since})))[::-1]

    def annotate(
        self, episode_id: str, note: str, *, label: str | None = None, step: int | None = None, author: str = ""
    ) -> Annotation:
        """Say something about an episode. Returns after the commit; what was said stays.

        Args:
            episode_id: its id, the beginning of it, or `last`.
            note: what is said.
            label: a short word to find it by.
            step: the step that is meant.
            author: who says it.

        Raises:
            NotFoundError: there is no such episode, or no such step in it.
            StoreError: the database cannot be written.
        """
        self._writer.flush()
        with reading(self._database) as connection:
            exact = resolve(connection, episode_id, ())
            there = (STEPS.c.episode_id == exact) & (STEPS.c["index"] == step)
            if step is not None and connection.execute(select(STEPS.c["index"]).where(there)).first() is None:
                raise NotFoundError(
                    f"episode {exact} has no step {step}", hint="nr-agent episodes show lists its steps"
                )
        made = Annotation(episode_id=exact, note=self._privacy.text(note), label=label, step=step, author=author)
        try:
            with self._database.write() as connection:
                write_annotation(connection, made)
        except SQLAlchemyError as error:
            raise self._database.unusable("written", error) from error
        return made

    def annotations(self, episode_id: str) -> list[Annotation]:
        """What was said about an episode, the oldest first.

        Raises:
            NotFoundError: there is no such episode.
        """
        with reading(self._database) as connection:
            return read_annotations(connection, resolve(connection, episode_id, self._writer.episodes_aside))

    def runs(self) -> list[Run]:
        """The runs in which episodes were begun, the newest first."""
        self._writer.flush()
        with reading(self._database) as connection:
            return read_runs(connection)

    def to_arrow(self, kind: str = "episodes", wanted: EpisodeFilter | None = None) -> pa.Table:
        """Rows as an Arrow table: `episodes`, `steps`, `events`, `interventions` or `annotations`.

        Args:
            kind: of row.
            wanted: which episodes' rows.

        Raises:
            ConfigurationError: there is no such kind.
            MissingExtraError: pyarrow is not installed.
        """
        self._writer.flush()
        with reading(self._database) as connection:
            return read_arrow(connection, kind, wanted or EpisodeFilter())

    def to_pandas(self, kind: str = "episodes", wanted: EpisodeFilter | None = None) -> Any:
        """The same as a pandas data frame."""
        return self.to_arrow(kind, wanted).to_pandas()


def _horizon(known: Collection[EpisodeSummary]) -> datetime | None:
    """When the oldest episode was begun that may still change, and some time before the newest: clocks differ."""
    begun = [one.created_at for one in known if one.status not in ENDED]
    newest = max((one.created_at for one in known), default=None)
    return min([*begun, newest - _DRIFT]) if newest is not None else None
