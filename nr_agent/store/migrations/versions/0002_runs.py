"""Runs, annotations, and what of an episode was kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002_runs"
down_revision = "0001_first"
branch_labels = None
depends_on = None

_TEXT = sa.Text()
_JSON = sa.JSON().with_variant(JSONB(), "postgresql")
_TIME = sa.DateTime().with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the tables and the columns."""
    op.create_table(
        "runs",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=True),
        sa.Column("config", _JSON, nullable=False),
        sa.Column("versions", _JSON, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_started_at"), "runs", ["started_at"], unique=False)
    op.create_table(
        "annotations",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("episode_id", _TEXT, nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("label", _TEXT, nullable=True),
        sa.Column("note", _TEXT, nullable=False),
        sa.Column("author", _TEXT, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["episode_id"], ["episodes.id"], name=op.f("fk_annotations_episode_id_episodes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
    )
    op.create_index(
        op.f("ix_annotations_episode_id_created_at"), "annotations", ["episode_id", "created_at"], unique=False
    )
    op.create_index(op.f("ix_annotations_label"), "annotations", ["label"], unique=False)
    # Added one by one, and not by rebuilding the table: that keeps what refers to it as it is.
    op.add_column("episodes", sa.Column("run_id", _TEXT, nullable=True))
    op.add_column("episodes", sa.Column("kept", _TEXT, nullable=True))
    op.create_index(op.f("ix_episodes_run_id"), "episodes", ["run_id"], unique=False)
