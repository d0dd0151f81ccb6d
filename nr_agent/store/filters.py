"""Which episodes: a typed filter that becomes SQL, and what a list of them shows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, Table, exists, func, select

from nr_agent.episode import EpisodeStatus, Record, StopReason, Usage
from nr_agent.events import Level
from nr_agent.store.operations import EPISODES, EVENTS, INTERVENTIONS, STEPS
from nr_agent.store.records import usage_of
from nr_agent.store.schema import AnnotationRow

_ANNOTATIONS: Table = AnnotationRow.__table__  # type: ignore[assignment] # declared as the wider FromClause


class EpisodeFilter(BaseModel):
    """Which episodes are meant; a field that is None does not restrict.

    Attributes:
        status: how they stand.
        domain: of the problem.
        task: the benchmark family of the problem.
        correct: whether the answer is right.
        level: with a failure event of this level.
        event: with a failure event of this kind.
        intervention: with an intervention of this kind.
        model: name of the model.
        policy: name of the policies.
        run: id of the run in which they were begun, or its beginning.
        annotation: with an annotation of this label.
        since: begun then or later.
        until: begun before.
        limit: at most so many, the newest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: EpisodeStatus | None = None
    domain: str | None = None
    task: str | None = None
    correct: bool | None = None
    level: Level | None = None
    event: str | None = None
    intervention: str | None = None
    model: str | None = None
    policy: str | None = None
    run: str | None = None
    annotation: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = Field(default=None, ge=1)

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        wanted: list[ColumnElement[bool]] = [
            EPISODES.c[name] == value
            for name in ("status", "domain", "task", "correct", "model", "policy")
            if (value := getattr(self, name)) is not None
        ]
        if self.run is not None:
            wanted.append(EPISODES.c.run_id.startswith(self.run, autoescape=True))
        if self.annotation is not None:
            said = [_ANNOTATIONS.c.episode_id == EPISODES.c.id, _ANNOTATIONS.c.label == self.annotation]
            wanted.append(exists(select(_ANNOTATIONS.c.id).where(*said)))
        if self.since is not None:
            wanted.append(EPISODES.c.created_at >= self.since)
        if self.until is not None:
            wanted.append(EPISODES.c.created_at < self.until)
        if self.level is not None or self.event is not None:
            same = [EVENTS.c.episode_id == EPISODES.c.id]
            same += [EVENTS.c.level == self.level] if self.level is not None else []
            same += [EVENTS.c.kind == self.event] if self.event is not None else []
            wanted.append(exists(select(EVENTS.c.id).where(*same)))
        if self.intervention is not None:
            same = [INTERVENTIONS.c.episode_id == EPISODES.c.id, INTERVENTIONS.c.kind == self.intervention]
            wanted.append(exists(select(INTERVENTIONS.c.id).where(*same)))
        return wanted

    def select_ids(self) -> Select[tuple[str]]:
        """As SQL that gives the ids of the episodes, the newest first where there is a limit."""
        ids = select(EPISODES.c.id).where(*self.conditions())
        if self.limit is None:
            return ids
        newest = ids.order_by(EPISODES.c.created_at.desc(), EPISODES.c.id.desc()).limit(self.limit)
        return select(newest.subquery().c.id)


class EpisodeSummary(Record):
    """An episode without its steps.

    Attributes:
        id: of the episode.
        status: how it stands.
        stop_reason: why the thinking ended.
        problem: its text.
        domain: of the problem.
        task: its benchmark family.
        answer: that was given.
        correct: whether it is right.
        model: that thought.
        usage: where the tokens went.
        steps: how many steps of thinking, discarded ones included.
        events: how many failure events.
        interventions: how many interventions.
        error: what went wrong.
        run_id: the run in which it was begun.
        created_at: when it began.
        ended_at: when it ended.
    """

    id: str
    status: EpisodeStatus
    stop_reason: StopReason | None
    problem: str
    domain: str
    task: str | None
    answer: str | None
    correct: bool | None
    model: str
    usage: Usage
    steps: int
    events: int
    interventions: int
    error: str | None
    run_id: str | None = None
    created_at: datetime
    ended_at: datetime | None


def select_newest(wanted: EpisodeFilter) -> Select[tuple[str]]:
    """The ids that a filter lets through, newest first.

    Ids alone: databases sort all that they find, and what goes with an episode would be looked up for each of them.
    """
    ids = select(EPISODES.c.id).where(*wanted.conditions())
    return ids.order_by(EPISODES.c.created_at.desc(), EPISODES.c.id.desc()).limit(wanted.limit)


def select_summaries(ids: Sequence[str]) -> Select[tuple[Any, ...]]:
    """The summaries of these episodes, newest first."""
    counts = [
        select(func.count()).where(STEPS.c.episode_id == EPISODES.c.id, STEPS.c.kind == "think").scalar_subquery(),
        select(func.count()).where(EVENTS.c.episode_id == EPISODES.c.id).scalar_subquery(),
        select(func.count()).where(INTERVENTIONS.c.episode_id == EPISODES.c.id).scalar_subquery(),
    ]
    named = [count.label(name) for count, name in zip(counts, ("steps", "events", "interventions"), strict=True)]
    statement = select(EPISODES, *named).where(EPISODES.c.id.in_(ids))
    return statement.order_by(EPISODES.c.created_at.desc(), EPISODES.c.id.desc())


def summary_of(row: Any) -> EpisodeSummary:
    """The summary of a row."""
    plain = set(EpisodeSummary.model_fields) - {"problem", "usage"}
    values = {name: row[name] for name in plain}
    return EpisodeSummary(**values, problem=row["problem_text"], usage=usage_of(row))
