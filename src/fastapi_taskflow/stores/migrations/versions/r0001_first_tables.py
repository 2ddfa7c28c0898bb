"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "taskflow_tasks",
        sa.Column("task_id", Text, primary_key=True),
        sa.Column("func_name", Text, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("owner", Text, nullable=False),
        sa.Column("queue", Text, nullable=False),
        sa.Column("priority", sa.BigInteger, nullable=False),
        sa.Column("source", Text, nullable=False),
        sa.Column("executor", Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("run_at", sa.Double),
        sa.Column("ready_at", sa.Double, nullable=False),
        sa.Column("start_time", sa.Double),
        sa.Column("end_time", sa.Double),
        sa.Column("error", Text),
        sa.Column("error_type", Text),
        sa.Column("stacktrace", Text),
        sa.Column("tags", Text),
        sa.Column("idempotency_key", Text),
        sa.Column("payload", Text),
        sa.Column("retry_of", Text),
        sa.Column("requeue_on_interrupt", sa.Boolean, nullable=False),
        sa.Column("recoveries", sa.Integer, nullable=False),
        sa.Column("traceparent", Text),
        sa.Column("tracestate", Text),
        sa.Column("trace_id", Text),
        sa.Column("span_id", Text),
        sa.Column("target", Text),
        sa.Column("attempts", Text),
        sa.Column("logs", Text),
        sa.Column("spans", Text),
        sa.Column("result", Text),
        sa.Column("progress", sa.Double),
    )
    _index("ix_taskflow_tasks_created", ["created_at", "task_id"])
    _index("ix_taskflow_tasks_func_status", ["func_name", "status", "created_at", "task_id"])
    live = "status IN ('pending', 'running')"
    _index("ix_taskflow_tasks_live", ["created_at", "task_id", "owner"], where=live)
    ended = "status IN ('success', 'failed', 'cancelled', 'rejected')"
    _index("ix_taskflow_tasks_ended", ["end_time", "task_id"], where=ended)
    _index("ix_taskflow_tasks_trace", ["trace_id"], where="trace_id IS NOT NULL")
    op.create_table(
        "taskflow_counters",
        sa.Column("func_name", Text, primary_key=True),
        sa.Column("status", Text, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "taskflow_durations",
        sa.Column("func_name", Text, primary_key=True),
        sa.Column("bucket", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "taskflow_instances",
        sa.Column("instance_id", Text, primary_key=True),
        sa.Column("host", Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("pid_started", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("heartbeat_at", sa.Double, nullable=False),
    )
    op.create_table(
        "taskflow_meta",
        sa.Column("key", Text, primary_key=True),
        sa.Column("value", Text, nullable=False),
        sa.Column("expires_at", sa.Double),
    )


def downgrade() -> None:
    """Drop them, with all that they hold."""
    for name in ("tasks", "counters", "durations", "instances", "meta"):
        op.drop_table(f"taskflow_{name}")


def _index(name: str, columns: list[str], *, where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, "taskflow_tasks", columns, sqlite_where=condition, postgresql_where=condition)
