"""Which process is at an episode, and whether it still is: signs of life, going on, and giving up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, bindparam, case, select, update

from nr_agent.store.operations import EPISODES, RESUMED
from nr_agent.store.owner import is_alive

_LOST = timedelta(minutes=15)  # without a sign of life from a process that cannot be looked at
_STANDING = select(EPISODES.c.owner, EPISODES.c.status).where(EPISODES.c.id == bindparam("of"))


def touch(connection: Connection, episodes: Iterable[str], *, owner: str, now: datetime) -> None:
    """Say that this process goes on with these episodes. One that was waiting, or given up for lost, runs again."""
    running = case((EPISODES.c.status.in_(RESUMED), "running"), else_=EPISODES.c.status)
    ended = case((EPISODES.c.status.in_(RESUMED), None), else_=EPISODES.c.ended_at)
    for episode_id in episodes:
        connection.execute(
            update(EPISODES)
            .where(EPISODES.c.id == episode_id)
            .values(status=running, ended_at=ended, heartbeat_at=now, owner=owner)
        )


def keep_alive(connection: Connection, episodes: Iterable[str], *, owner: str, now: datetime) -> list[str]:
    """Give a sign of life for episodes that this process is at.

    Returns:
        Those that it is not at: another process went on with them, or they have ended.
    """
    lost = []
    for episode_id in episodes:
        mine = (EPISODES.c.id == episode_id) & (EPISODES.c.owner == owner)
        # Given up for lost by somebody who cannot look at this process: it is not.
        going = EPISODES.c.status.in_(("running", "abandoned"))
        change = update(EPISODES).where(mine, going).values(status="running", ended_at=None, heartbeat_at=now)
        if connection.execute(change).rowcount == 0:
            lost.append(episode_id)
    return lost


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
            change = update(EPISODES).where(EPISODES.c.id == row.id)
            connection.execute(change.values(status="abandoned", ended_at=last))
