"""The first schema: episodes, steps, failure events, interventions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001_first"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out here and not imported: a migration stays what it was when the library's types change.
_TEXT = sa.Text()
_BYTES = sa.LargeBinary()
_JSON = sa.JSON().with_variant(JSONB(), "postgresql")
_TIME = sa.DateTime().with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "episodes",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("problem_text", _TEXT, nullable=False),
        sa.Column("problem_hash", _TEXT, nullable=False),
        sa.Column("problem_reference", _TEXT, nullable=True),
        sa.Column("problem_seed", _TEXT, nullable=True),
        sa.Column("problem_metadata", _JSON, nullable=False),
        sa.Column("domain", _TEXT, nullable=False),
        sa.Column("task", _TEXT, nullable=True),
        sa.Column("status", _TEXT, nullable=False),
        sa.Column("stop_reason", _TEXT, nullable=True),
        sa.Column("answer", _TEXT, nullable=True),
        sa.Column("correct", sa.Boolean(), nullable=True),
        sa.Column("error", _TEXT, nullable=True),
        sa.Column("model", _TEXT, nullable=False),
        sa.Column("fingerprint", _TEXT, nullable=False),
        sa.Column("detector", _TEXT, nullable=True),
        sa.Column("policy", _TEXT, nullable=True),
        sa.Column("seed", _TEXT, nullable=False),
        sa.Column("settings", _JSON, nullable=False),
        sa.Column("usage_prompt", sa.BigInteger(), nullable=False),
        sa.Column("usage_thinking", sa.BigInteger(), nullable=False),
        sa.Column("usage_answer", sa.BigInteger(), nullable=False),
        sa.Column("usage_inserted", sa.BigInteger(), nullable=False),
        sa.Column("usage_discarded", sa.BigInteger(), nullable=False),
        sa.Column("thread_id", _TEXT, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column("heartbeat_at", _TIME, nullable=True),
        sa.Column("owner", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_episodes")),
    )
    op.create_index(op.f("ix_episodes_created_at_id"), "episodes", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_episodes_domain_correct"), "episodes", ["domain", "correct"], unique=False)
    op.create_index(op.f("ix_episodes_problem_hash"), "episodes", ["problem_hash"], unique=False)
    op.create_index(op.f("ix_episodes_status"), "episodes", ["status"], unique=False)
    op.create_index(op.f("ix_episodes_task_correct"), "episodes", ["task", "correct"], unique=False)
    op.create_table(
        "schema_info",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("library_version", _TEXT, nullable=False),
        sa.Column("opened_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_info")),
    )
    op.create_table(
        "failure_events",
        sa.Column("episode_id", _TEXT, nullable=False),
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("type", _TEXT, nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("level", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.Float(precision=53), nullable=False),
        sa.Column("threshold", sa.Float(precision=53), nullable=False),
        sa.Column("detector", _TEXT, nullable=False),
        sa.Column("evidence", _JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["episode_id"], ["episodes.id"], name=op.f("fk_failure_events_episode_id_episodes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("episode_id", "id", name=op.f("pk_failure_events")),
    )
    op.create_index(op.f("ix_failure_events_level_kind"), "failure_events", ["level", "kind"], unique=False)
    op.create_table(
        "interventions",
        sa.Column("episode_id", _TEXT, nullable=False),
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("event_id", _TEXT, nullable=True),
        sa.Column("policy", _TEXT, nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("mode", _TEXT, nullable=False),
        sa.Column("inserted", _BYTES, nullable=False),
        sa.Column("rolled_back", sa.BigInteger(), nullable=False),
        sa.Column("branches", _JSON, nullable=False),
        sa.Column("kept", _TEXT, nullable=True),
        sa.Column("outcome", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["episode_id"], ["episodes.id"], name=op.f("fk_interventions_episode_id_episodes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("episode_id", "id", name=op.f("pk_interventions")),
    )
    op.create_index(op.f("ix_interventions_kind"), "interventions", ["kind"], unique=False)
    op.create_table(
        "steps",
        sa.Column("episode_id", _TEXT, nullable=False),
        sa.Column("index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("branch", _TEXT, nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("ids", _BYTES, nullable=False),
        sa.Column("provenance", _JSON, nullable=False),
        sa.Column("logprobs", _BYTES, nullable=False),
        sa.Column("text", _TEXT, nullable=False),
        sa.Column("stop", _TEXT, nullable=False),
        sa.Column("discarded", sa.Boolean(), nullable=False),
        sa.Column("readings", _JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["episode_id"], ["episodes.id"], name=op.f("fk_steps_episode_id_episodes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("episode_id", "index", name=op.f("pk_steps")),
    )
