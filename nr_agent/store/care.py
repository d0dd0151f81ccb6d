"""Looking after a store: how it stands, whether it is sound, and what of it may go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from nr_agent.episode import Episode, Record
from nr_agent.errors import ConfigurationError, StoreError
from nr_agent.settings import load_settings
from nr_agent.store.database import Database, reason_of
from nr_agent.store.filters import EpisodeFilter
from nr_agent.store.operations import ENDED, EPISODES, EVENTS, INTERVENTIONS, STEPS, Operation
from nr_agent.store.reading import load_episode, reading
from nr_agent.store.records import hash_problem
from nr_agent.store.schema import HEAD, REVISIONS
from nr_agent.store.spool import spool_of
from nr_agent.store.store import EpisodeStore
from nr_agent.store.upgrades import prepare, read_revision

_PARTS = {"steps": STEPS, "events": EVENTS, "interventions": INTERVENTIONS}


class StoreStatus(Record):
    """How a store stands. Looking changes nothing.

    Attributes:
        location: a path, or a URL without its password.
        revision: of its schema; None for a database that is still empty.
        head: the revision of this library.
        episodes: how many there are, by status.
        steps: how many there are, of all episodes.
        events: how many failure events.
        interventions: how many interventions.
        spooled: records that wait beside the database until it is opened again.
        refused: records that could not be replayed and are kept in a file of their own.
        bytes: size of the file, where there is one.
    """

    location: str
    revision: str | None
    head: str = HEAD
    episodes: dict[str, int] = Field(default_factory=dict)
    steps: int = 0
    events: int = 0
    interventions: int = 0
    spooled: int = 0
    refused: int = 0
    bytes: int | None = None

    @property
    def standing(self) -> str:
        """The schema against the library's: `empty`, `current`, `older` or `newer`."""
        if self.revision is None:
            return "empty"
        if self.revision == self.head:
            return "current"
        return "older" if not self.revision or self.revision in REVISIONS else "newer"


class Fault(Record):
    """Something in a store that is not as it was written.

    Attributes:
        place: the episode, the table or the file.
        what: is wrong with it.
    """

    place: str
    what: str


class Pruning(Record):
    """Which episodes may go; what is given must hold together. Those that run or wait never go.

    Attributes:
        older_than: begun so long ago.
        keep_last: not one of the so many newest.
        abandoned: only what a crashed process left behind.
    """

    older_than: timedelta | None = Field(default=None, gt=timedelta(0))
    keep_last: int | None = Field(default=None, ge=0)
    abandoned: bool = False


def find_store(url: str | Path | None = None) -> Database:
    """The database of a store: the one that is named, or the one of the settings.

    Raises:
        StoreError: the URL cannot be read.
    """
    return Database(load_settings().store_url if url is None else url)


def read_status(url: str | Path | None = None) -> StoreStatus:
    """How a store stands.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    with _looked_at(url) as database:
        with reading(database) as connection:
            revision = read_revision(connection, database)
            counts = _count(connection) if revision is not None else {}
        spool = spool_of(database)
        path = database.path
        return StoreStatus(
            location=database.label,
            revision=revision,
            spooled=sum(1 for _ in _lines(spool.path)) if spool else 0,
            refused=sum(1 for _ in _lines(spool.refused)) if spool else 0,
            bytes=path.stat().st_size if path is not None else None,
            **counts,
        )


def upgrade(url: str | Path | None = None) -> tuple[str | None, str]:
    """Bring the schema up to date; a SQLite file is copied before.

    Returns:
        The revision before and after.

    Raises:
        StoreError: there is no store, or it cannot be written.
        SchemaVersionError: it was written by a newer library.
    """
    with _looked_at(url) as database:
        with reading(database) as connection:
            before = read_revision(connection, database)
        try:
            prepare(database)
        except (SQLAlchemyError, OSError) as error:
            raise database.unusable("upgraded", error) from error
        return before, HEAD


def check(url: str | Path | None = None) -> Iterator[Fault]:
    """Read everything that a store holds, and name what is wrong with it. Changes nothing.

    Raises:
        StoreError: there is no store, or its schema is not that of this library.
    """
    with _looked_at(url) as database:
        with reading(database) as connection:
            revision = read_revision(connection, database)
            if revision != HEAD:
                raise StoreError(
                    f"the episode store {database.label} has schema {revision or 'none'}, and {HEAD} is needed",
                    hint="run nr-agent db upgrade first",
                )
            yield from _check_database(connection)
            for episode_id in connection.execute(select(EPISODES.c.id).order_by(EPISODES.c.id)).scalars().all():
                yield from _check_episode(connection, episode_id)
        spool = spool_of(database)
        if spool is not None:
            yield from _check_spool(spool.path)
            if waiting := sum(1 for _ in _lines(spool.refused)):
                yield Fault(place=str(spool.refused), what=f"{waiting} records could not be replayed")


def choose_prunable(store: EpisodeStore, rule: Pruning, *, now: datetime | None = None) -> list[str]:
    """The ids of the episodes that a rule lets go, newest first.

    Raises:
        ConfigurationError: the rule says nothing, and would let go of everything.
    """
    if rule == Pruning():
        raise ConfigurationError(
            "nothing says which episodes may go", hint="give --older-than, --keep-last or --abandoned"
        )
    spared: set[str] = set()
    if rule.keep_last:
        spared = {one.id for one in store.find(EpisodeFilter(limit=rule.keep_last))}
    until = None if rule.older_than is None else (now or datetime.now(UTC)) - rule.older_than
    wanted = EpisodeFilter(until=until, status="abandoned" if rule.abandoned else None)
    return [one.id for one in store.find(wanted) if one.status in ENDED and one.id not in spared]


@contextmanager
def _looked_at(url: str | Path | None) -> Iterator[Database]:
    database = find_store(url)
    database.make_place(create=False)
    try:
        yield database
    finally:
        database.dispose()


def _count(connection: Connection) -> dict[str, object]:
    grouped = select(EPISODES.c.status, func.count()).group_by(EPISODES.c.status).order_by(EPISODES.c.status)
    counts: dict[str, object] = {"episodes": {status: count for status, count in connection.execute(grouped)}}
    for name, table in _PARTS.items():
        counts[name] = connection.execute(select(func.count()).select_from(table)).scalar_one()
    return counts


def _check_database(connection: Connection) -> Iterator[Fault]:
    if connection.dialect.name == "sqlite":
        for (said,) in connection.exec_driver_sql("PRAGMA integrity_check"):
            if said != "ok":
                yield Fault(place="database", what=said)
    for name, table in _PARTS.items():
        orphans = select(table.c.episode_id).where(table.c.episode_id.not_in(select(EPISODES.c.id))).distinct()
        for episode_id in connection.execute(orphans.order_by(table.c.episode_id)).scalars():
            yield Fault(place=episode_id, what=f"{name} of an episode that is not there")


def _check_episode(connection: Connection, episode_id: str) -> Iterator[Fault]:
    try:
        episode = load_episode(connection, episode_id)
    except (ValueError, TypeError, KeyError, SQLAlchemyError) as error:
        # The types of the columns and the records refuse what they did not write.
        yield Fault(place=episode_id, what=f"cannot be read: {reason_of(error)}")
        return
    if episode is None:
        return
    for what in _flaws(episode):
        yield Fault(place=episode_id, what=what)
    columns = select(EPISODES.c.problem_hash, EPISODES.c.kept).where(EPISODES.c.id == episode_id)
    stored, kept = connection.execute(columns).one()
    # Of a text that was not kept, the hash is all that there is.
    if kept is None and stored != hash_problem(episode.problem.text):
        yield Fault(place=episode_id, what="the hash is not that of its problem")


def _flaws(episode: Episode) -> Iterator[str]:
    for step in episode.steps:
        if sum(length for _, length in step.provenance) != len(step.ids):
            yield f"step {step.index}: the provenance does not cover its tokens"
        if step.logprobs and len(step.logprobs) != len(step.ids):
            yield f"step {step.index}: {len(step.logprobs)} log-probabilities for {len(step.ids)} tokens"
    # One that was cut off may well lack its end; a completed one has all of its line.
    if episode.status != "completed":
        return
    position = 0
    for step in episode.kept:
        if step.start != position:
            yield f"step {step.index} begins at {step.start} and not at {position}: steps are missing before it"
            return
        position += len(step.ids)
    if not episode.kept or episode.kept[0].kind != "prompt":
        yield "the prompt is missing"


def _check_spool(path: Path) -> Iterator[Fault]:
    for number, line in enumerate(_lines(path), 1):
        try:
            Operation.from_json(line.decode())
        except (ValueError, TypeError) as error:
            yield Fault(place=str(path), what=f"line {number} is no record: {reason_of(error)}")


def _lines(path: Path) -> Iterator[bytes]:
    if path.is_file():
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
