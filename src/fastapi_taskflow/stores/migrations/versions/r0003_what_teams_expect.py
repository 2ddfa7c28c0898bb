"""Progress, expiry, resolution, families, schedules and follow-ups of tasks; the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

COLUMNS = (
    ("progress_text", Text),
    ("resolution", Text),
    ("expires_at", sa.Double),
    ("parent_id", Text),
    ("group_id", Text),
    ("schedule", Text),
    ("follow", Text),
)
DEAD = "status IN ('failed', 'interrupted') AND resolution IS NULL"
SCHEDULED = "status IN ('pending', 'running') AND schedule IS NOT NULL"
INDEXES = {
    "ix_taskflow_tasks_dead": (["created_at", "task_id"], DEAD),
    "ix_taskflow_tasks_parent": (["parent_id", "created_at", "task_id"], "parent_id IS NOT NULL"),
    "ix_taskflow_tasks_group": (["group_id", "created_at", "task_id"], "group_id IS NOT NULL"),
    "ix_taskflow_tasks_schedule": (["schedule", "created_at", "task_id"], "schedule IS NOT NULL"),
    "ix_taskflow_tasks_scheduled": (["schedule", "created_at", "task_id"], SCHEDULED),
    "ix_taskflow_tasks_retry": (["retry_of", "created_at", "task_id"], "retry_of IS NOT NULL"),
}


def upgrade() -> None:
    """Add the columns, their indexes and the table."""
    for name, kind in COLUMNS:
        op.add_column("taskflow_tasks", sa.Column(name, kind))
    for name, (columns, where) in INDEXES.items():
        op.create_index(name, "taskflow_tasks", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
    op.create_table(
        "taskflow_audit",
        sa.Column("act_id", Text, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("actor", Text, nullable=False),
        sa.Column("action", Text, nullable=False),
        sa.Column("target", Text, nullable=False),
        sa.Column("detail", Text),
        sa.Column("address", Text),
    )
    op.create_index("ix_taskflow_audit_target", "taskflow_audit", ["target", "act_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("taskflow_audit")
    for name in INDEXES:
        op.drop_index(name, "taskflow_tasks")
    for name, _ in COLUMNS:
        op.drop_column("taskflow_tasks", name)
