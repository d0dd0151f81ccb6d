"""Reading whole episodes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from nr_agent.episode import Episode
from nr_agent.errors import NotFoundError
from nr_agent.store.cleaning import clean_text
from nr_agent.store.database import Database
from nr_agent.store.operations import EPISODES, EVENTS, INTERVENTIONS, STEPS
from nr_agent.store.records import episode_of, event_of, intervention_of, step_of


@contextmanager
def reading(database: Database) -> Iterator[Connection]:
    """A connection that reads.

    Raises:
        StoreError: the database cannot be read.
    """
    try:
        with database.read() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise database.unusable("read", error) from error


def load_episode(connection: Connection, episode_id: str) -> Episode | None:
    """The whole episode with this id, None where there is none."""
    row = connection.execute(select(EPISODES).where(EPISODES.c.id == episode_id)).mappings().first()
    if row is None:
        return None
    steps = select(STEPS).where(STEPS.c.episode_id == episode_id).order_by(STEPS.c["index"])
    # By step first: forks think side by side, and which of them writes first is chance.
    events = select(EVENTS).where(EVENTS.c.episode_id == episode_id).order_by(EVENTS.c.step, EVENTS.c.ordinal)
    actions = select(INTERVENTIONS).where(INTERVENTIONS.c.episode_id == episode_id)
    actions = actions.order_by(INTERVENTIONS.c.step, INTERVENTIONS.c.ordinal)
    return episode_of(
        row,
        [step_of(one) for one in connection.execute(steps).mappings()],
        [event_of(one) for one in connection.execute(events).mappings()],
        [intervention_of(one) for one in connection.execute(actions).mappings()],
    )


def resolve(connection: Connection, asked: str, aside: Collection[str]) -> str:
    """The id that is meant: an id, the beginning of one, or `last`.

    Args:
        connection: to look in.
        asked: what was given.
        aside: ids that the database may not know yet.

    Raises:
        NotFoundError: none is, or more than one.
    """
    if asked == "last":
        newest = select(EPISODES.c.id).order_by(EPISODES.c.created_at.desc(), EPISODES.c.id.desc()).limit(1)
        found = connection.execute(newest).scalar()
        if found is None:
            raise NotFoundError("there is no episode yet", hint="solve a problem first")
        return str(found)
    asked = clean_text(asked)
    if not asked:
        raise not_found(asked)
    if asked in aside or connection.execute(select(EPISODES.c.id).where(EPISODES.c.id == asked)).first():
        return asked
    beginning = EPISODES.c.id.startswith(asked, autoescape=True)
    some = set(connection.execute(select(EPISODES.c.id).where(beginning).limit(3)).scalars())
    some |= {one for one in aside if one.startswith(asked)}
    if len(some) > 1:
        raise NotFoundError(f"more than one episode begins with {asked}", hint="give more of the id")
    if not some:
        raise not_found(asked)
    return str(some.pop())


def not_found(episode_id: str) -> NotFoundError:
    """The error for an id that no episode has."""
    return NotFoundError(f"there is no episode {episode_id!r}", hint="nr-agent episodes ls shows what there is")
