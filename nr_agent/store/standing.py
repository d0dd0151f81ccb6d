"""Which process is at an episode, and whether it still is: signs of life, going on, and giving up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, bindparam, case, select, update

from nr_agent.store.operations import EPISODES, RESUMED
from nr_agent.store.owner import is_alive

_LOST = timedelta(minutes=15)  # without a sign of life from a process that cannot be looked at
_ONE = EPISODES.c.id == bindparam("of")
_NOW = bindparam("now", type_=EPISODES.c.heartbeat_at.type)
_IS_OVER = EPISODES.c.status.in_(RESUMED)

# Made once: to build a statement takes longer than to carry it out.
_STANDING = select(EPISODES.c.owner, EPISODES.c.status).where(_ONE)
_GOING_ON = (
    update(EPISODES)
    .where(_ONE)
    .values(
        status=case((_IS_OVER, "running"), else_=EPISODES.c.status),
        ended_at=case((_IS_OVER, None), else_=EPISODES.c.ended_at),
        heartbeat_at=_NOW,
        owner=bindparam("by"),
    )
)
# Given up for lost by somebody who cannot look at this process: it is not.
_ALIVE = (
    update(EPISODES)
    .where(_ONE, EPISODES.c.owner == bindparam("by"), EPISODES.c.status.in_(("running", "abandoned")))
    .values(status="running", ended_at=None, heartbeat_at=_NOW)
)


def touch(connection: Connection, episodes: Iterable[str], *, owner: str, now: datetime) -> None:
    """Say that this process goes on with these episodes. One that was waiting, or given up for lost, runs again."""
    for episode_id in episodes:
        connection.execute(_GOING_ON, {"of": episode_id, "by": owner, "now": now})


def keep_alive(connection: Connection, episodes: Iterable[str], *, owner: str, now: datetime) -> list[str]:
    """Give a sign of life for episodes that this process is at.

    Returns:
        Those that it is not at: another process went on with them, or they have ended.
    """
    sign = {"by": owner, "now": now}
    return [one for one in episodes if connection.execute(_ALIVE, {"of": one, **sign}).rowcount == 0]


def is_at(connection: Connection, episode_id: str, *, owner: str) -> bool:
    """Whether a process is the last that went on with an episode, and the episode runs."""
    found = connection.execute(_STANDING, {"of": episode_id}).first()
    return found is not None and (found.owner, found.status) == (owner, "running")


def give_up_lost(connection: Connection) -> None:
    """Mark running episodes whose process is gone."""
    now = datetime.now(UTC)
    running = select(EPISODES.c.id, EPISODES.c.owner, EPISODES.c.heartbeat_at, EPISODES.c.created_at)
    for row in connection.execute(running.where(EPISODES.c.status == "running")).all():
        last = row.heartbeat_at or row.created_at
        alive = is_alive(row.owner)
        if alive is None:
            alive = now - last < _LOST
        if not alive:
            # Unless somebody goes on with it at this moment.
            as_read = (EPISODES.c.status == "running") & EPISODES.c.owner.is_not_distinct_from(row.owner)
            change = update(EPISODES).where((EPISODES.c.id == row.id) & as_read)
            connection.execute(change.values(status="abandoned", ended_at=last))
