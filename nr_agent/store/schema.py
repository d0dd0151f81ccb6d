"""The tables. Identifiers are made by the client, so that writing something twice writes it once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, Integer, MetaData, PrimaryKeyConstraint, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nr_agent.store.columns import Logprobs, SafeJSON, SafeText, TokenIds, UtcTime, WholeNumber

REVISIONS = ("0001_first", "0002_runs")
"""Every schema there has been, oldest first: the migrations in `migrations/versions`."""

HEAD = REVISIONS[-1]


def _of_episode() -> ForeignKey:
    return ForeignKey("episodes.id", ondelete="CASCADE")


class Base(DeclarativeBase):
    """Base of the tables. Constraints are named by a rule, so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class EpisodeRow(Base):
    """An episode's head: the problem, how it was thought through, what came of it.

    `run_id` is no foreign key: an episode may outlive what is said about its run. `kept` says what was left out on
    the way in: `redacted`, or `no_text`; nothing where all is there.
    """

    __tablename__ = "episodes"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "status"),
        Index(None, "domain", "correct"),
        Index(None, "task", "correct"),
        Index(None, "problem_hash"),
        Index(None, "run_id"),
    )

    id: Mapped[str] = mapped_column(SafeText, primary_key=True)
    problem_text: Mapped[str] = mapped_column(SafeText)
    problem_hash: Mapped[str] = mapped_column(Text)
    problem_reference: Mapped[str | None] = mapped_column(SafeText)
    problem_seed: Mapped[int | None] = mapped_column(WholeNumber)
    problem_metadata: Mapped[dict[str, Any]] = mapped_column(SafeJSON)
    domain: Mapped[str] = mapped_column(SafeText)
    task: Mapped[str | None] = mapped_column(SafeText)
    status: Mapped[str] = mapped_column(Text)
    stop_reason: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(SafeText)
    correct: Mapped[bool | None] = mapped_column(Boolean)
    error: Mapped[str | None] = mapped_column(SafeText)
    model: Mapped[str] = mapped_column(SafeText)
    fingerprint: Mapped[str] = mapped_column(SafeText)
    detector: Mapped[str | None] = mapped_column(SafeText)
    policy: Mapped[str | None] = mapped_column(SafeText)
    seed: Mapped[int] = mapped_column(WholeNumber)
    settings: Mapped[dict[str, Any]] = mapped_column(SafeJSON)
    usage_prompt: Mapped[int] = mapped_column(BigInteger)
    usage_thinking: Mapped[int] = mapped_column(BigInteger)
    usage_answer: Mapped[int] = mapped_column(BigInteger)
    usage_inserted: Mapped[int] = mapped_column(BigInteger)
    usage_discarded: Mapped[int] = mapped_column(BigInteger)
    thread_id: Mapped[str | None] = mapped_column(SafeText)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    heartbeat_at: Mapped[datetime | None] = mapped_column(UtcTime)
    owner: Mapped[str | None] = mapped_column(SafeText)
    run_id: Mapped[str | None] = mapped_column(SafeText)
    kept: Mapped[str | None] = mapped_column(Text)


class StepRow(Base):
    """A step of an episode."""

    __tablename__ = "steps"
    __table_args__ = (PrimaryKeyConstraint("episode_id", "index"),)

    episode_id: Mapped[str] = mapped_column(SafeText, ForeignKey("episodes.id", ondelete="CASCADE"))
    index: Mapped[int] = mapped_column(Integer, autoincrement=False)
    kind: Mapped[str] = mapped_column(Text)
    branch: Mapped[str] = mapped_column(SafeText)
    start: Mapped[int] = mapped_column(BigInteger)
    ids: Mapped[list[int]] = mapped_column(TokenIds)
    provenance: Mapped[list[Any]] = mapped_column(SafeJSON)
    logprobs: Mapped[list[float | None]] = mapped_column(Logprobs)
    text: Mapped[str] = mapped_column(SafeText)
    stop: Mapped[str] = mapped_column(SafeText)
    discarded: Mapped[bool] = mapped_column(Boolean)
    readings: Mapped[list[Any]] = mapped_column(SafeJSON)


class FailureEventRow(Base):
    """A failure event of an episode. `ordinal` keeps the order in which a step's events were first written."""

    __tablename__ = "failure_events"
    __table_args__ = (PrimaryKeyConstraint("episode_id", "id"), Index(None, "level", "kind"))

    episode_id: Mapped[str] = mapped_column(SafeText, ForeignKey("episodes.id", ondelete="CASCADE"))
    id: Mapped[str] = mapped_column(SafeText)
    ordinal: Mapped[int] = mapped_column(BigInteger)
    type: Mapped[str] = mapped_column(Text)
    schema_version: Mapped[int] = mapped_column(Integer)
    level: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    step: Mapped[int] = mapped_column(Integer)
    position: Mapped[int] = mapped_column(BigInteger)
    score: Mapped[float] = mapped_column(Float(53))
    threshold: Mapped[float] = mapped_column(Float(53))
    detector: Mapped[str] = mapped_column(SafeText)
    evidence: Mapped[dict[str, Any]] = mapped_column(SafeJSON)


class InterventionRow(Base):
    """An intervention in an episode. `event_id` is no foreign key: the event may arrive later, or never."""

    __tablename__ = "interventions"
    __table_args__ = (PrimaryKeyConstraint("episode_id", "id"), Index(None, "kind"))

    episode_id: Mapped[str] = mapped_column(SafeText, ForeignKey("episodes.id", ondelete="CASCADE"))
    id: Mapped[str] = mapped_column(SafeText)
    ordinal: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(Text)
    event_id: Mapped[str | None] = mapped_column(SafeText)
    policy: Mapped[str] = mapped_column(SafeText)
    step: Mapped[int] = mapped_column(Integer)
    position: Mapped[int] = mapped_column(BigInteger)
    mode: Mapped[str] = mapped_column(Text)
    inserted: Mapped[list[int]] = mapped_column(TokenIds)
    rolled_back: Mapped[int] = mapped_column(BigInteger)
    branches: Mapped[list[Any]] = mapped_column(SafeJSON)
    kept: Mapped[str | None] = mapped_column(SafeText)
    outcome: Mapped[str] = mapped_column(SafeText)


class RunRow(Base):
    """A run: a store that was opened to write episodes, by which versions and with which settings."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "started_at"),)

    id: Mapped[str] = mapped_column(SafeText, primary_key=True)
    name: Mapped[str | None] = mapped_column(SafeText)
    config: Mapped[dict[str, Any]] = mapped_column(SafeJSON)
    versions: Mapped[dict[str, Any]] = mapped_column(SafeJSON)
    started_at: Mapped[datetime] = mapped_column(UtcTime)


class AnnotationRow(Base):
    """What a person or a program says about an episode afterwards. Rows are added and never changed."""

    __tablename__ = "annotations"
    __table_args__ = (Index(None, "episode_id", "created_at"), Index(None, "label"))

    id: Mapped[str] = mapped_column(SafeText, primary_key=True)
    episode_id: Mapped[str] = mapped_column(SafeText, ForeignKey("episodes.id", ondelete="CASCADE"))
    step: Mapped[int | None] = mapped_column(Integer)
    label: Mapped[str | None] = mapped_column(SafeText)
    note: Mapped[str] = mapped_column(SafeText)
    author: Mapped[str] = mapped_column(SafeText)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class SchemaInfoRow(Base):
    """One row: which library wrote to this database last, and when. Opening a store writes it."""

    __tablename__ = "schema_info"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    library_version: Mapped[str] = mapped_column(Text)
    opened_at: Mapped[datetime] = mapped_column(UtcTime)
