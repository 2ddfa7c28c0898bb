"""What several workers leave for each other: requests to cancel, and their metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "taskflow_cancels",
        sa.Column("task_id", Text, primary_key=True),
        sa.Column("asked_at", sa.Double, nullable=False),
    )
    op.create_table(
        "taskflow_numbers",
        sa.Column("host", Text, primary_key=True),
        sa.Column("instance_id", Text, primary_key=True),
        sa.Column("numbers", Text, nullable=False),
        sa.Column("saved_at", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("taskflow_numbers")
    op.drop_table("taskflow_cancels")
