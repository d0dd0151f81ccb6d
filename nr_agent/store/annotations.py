"""Runs and annotations: what is said about episodes, beside what they are."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import Field
from sqlalchemy import Connection, Table, func, insert, select

from nr_agent.episode import Record
from nr_agent.ids import new_id
from nr_agent.store.operations import EPISODES, RUNS
from nr_agent.store.schema import AnnotationRow

ANNOTATIONS: Table = AnnotationRow.__table__  # type: ignore[assignment] # declared as the wider FromClause

_PACKAGES = ("nr-agent", "torch", "transformers", "langgraph", "sqlalchemy")


class Annotation(Record):
    """What somebody says about an episode afterwards.

    Attributes:
        id: its identifier.
        episode_id: the episode.
        step: the step that is meant, if one is.
        label: a short word to find it by.
        note: what is said.
        author: who says it.
        created_at: when.
    """

    id: str = Field(default_factory=new_id)
    episode_id: str
    step: int | None = Field(default=None, ge=0)
    label: str | None = None
    note: str = ""
    author: str = ""
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Run(Record):
    """A store that was opened to write episodes.

    Attributes:
        id: its identifier.
        name: that it was given.
        config: whatever it was started with.
        versions: of Python and of the packages that matter.
        started_at: when.
        episodes: how many were begun in it.
    """

    id: str = Field(default_factory=new_id)
    name: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    started_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    episodes: int = 0


def this_run(name: str | None, config: Mapping[str, Any] | None) -> Run:
    """A run that begins now, in this process."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Run(name=name, config=dict(config or {}), versions=versions)


def write_annotation(connection: Connection, annotation: Annotation) -> None:
    """Add an annotation."""
    connection.execute(insert(ANNOTATIONS).values(annotation.model_dump()))


def read_annotations(connection: Connection, episode_id: str) -> list[Annotation]:
    """The annotations of an episode, the oldest first."""
    wanted = select(ANNOTATIONS).where(ANNOTATIONS.c.episode_id == episode_id)
    rows = connection.execute(wanted.order_by(ANNOTATIONS.c.created_at, ANNOTATIONS.c.id)).mappings()
    return [Annotation.model_validate(dict(row)) for row in rows]


def read_runs(connection: Connection) -> list[Run]:
    """All runs, the newest first."""
    count = select(func.count()).where(EPISODES.c.run_id == RUNS.c.id).scalar_subquery().label("episodes")
    rows = connection.execute(select(RUNS, count).order_by(RUNS.c.started_at.desc(), RUNS.c.id.desc())).mappings()
    return [Run.model_validate(dict(row)) for row in rows]
