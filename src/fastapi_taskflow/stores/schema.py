"""The tables of the SQL store, portable between SQLite and PostgreSQL.

The migrations in ``migrations/`` build the same tables; a test compares the two.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from fastapi_taskflow.stores.text import StoredText

metadata = sa.MetaData()

_Seconds = sa.Double
_LIVE: Final = "status IN ('pending', 'running')"
_DEAD: Final = "status IN ('failed', 'interrupted') AND resolution IS NULL"
_SCHEDULED: Final = f"{_LIVE} AND schedule IS NOT NULL"
_PRUNABLE: Final = "status IN ('success', 'failed', 'cancelled', 'rejected')"

tasks = sa.Table(
    "taskflow_tasks",
    metadata,
    sa.Column("task_id", StoredText, primary_key=True),
    sa.Column("func_name", StoredText, nullable=False),
    sa.Column("status", StoredText, nullable=False),
    sa.Column("created_at", _Seconds, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("owner", StoredText, nullable=False),
    sa.Column("queue", StoredText, nullable=False),
    sa.Column("priority", sa.BigInteger, nullable=False),
    sa.Column("source", StoredText, nullable=False),
    sa.Column("executor", StoredText, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("run_at", _Seconds),
    sa.Column("ready_at", _Seconds, nullable=False),
    sa.Column("start_time", _Seconds),
    sa.Column("end_time", _Seconds),
    sa.Column("error", StoredText),
    sa.Column("error_type", StoredText),
    sa.Column("stacktrace", StoredText),
    sa.Column("tags", StoredText),
    sa.Column("idempotency_key", StoredText),
    sa.Column("payload", StoredText),
    sa.Column("retry_of", StoredText),
    sa.Column("requeue_on_interrupt", sa.Boolean, nullable=False),
    sa.Column("recoveries", sa.Integer, nullable=False),
    sa.Column("traceparent", StoredText),
    sa.Column("tracestate", StoredText),
    sa.Column("trace_id", StoredText),
    sa.Column("span_id", StoredText),
    sa.Column("target", StoredText),
    sa.Column("attempts", StoredText),
    sa.Column("logs", StoredText),
    sa.Column("spans", StoredText),
    sa.Column("result", StoredText),
    sa.Column("progress", _Seconds),
    sa.Column("progress_text", StoredText),
    sa.Column("resolution", StoredText),
    sa.Column("expires_at", _Seconds),
    sa.Column("parent_id", StoredText),
    sa.Column("group_id", StoredText),
    sa.Column("schedule", StoredText),
    sa.Column("follow", StoredText),
)

# Each index costs every task, so there are few. Lists by function or status merge one sorted leg for each
# (func_name, status) that the counters know, which lets one index serve every mix of the two.
sa.Index("ix_taskflow_tasks_created", tasks.c.created_at, tasks.c.task_id)
sa.Index("ix_taskflow_tasks_func_status", tasks.c.func_name, tasks.c.status, tasks.c.created_at, tasks.c.task_id)
sa.Index(
    "ix_taskflow_tasks_live",
    tasks.c.created_at,
    tasks.c.task_id,
    tasks.c.owner,
    sqlite_where=sa.text(_LIVE),
    postgresql_where=sa.text(_LIVE),
)
sa.Index(
    "ix_taskflow_tasks_ended",
    tasks.c.end_time,
    tasks.c.task_id,
    sqlite_where=sa.text(_PRUNABLE),
    postgresql_where=sa.text(_PRUNABLE),
)
# Trace ids are random, so each insert here dirties a page of its own (6 µs a task, the dearest index): it holds
# nothing else, and a trace's few tasks are sorted when read.
sa.Index(
    "ix_taskflow_tasks_trace",
    tasks.c.trace_id,
    sqlite_where=sa.text("trace_id IS NOT NULL"),
    postgresql_where=sa.text("trace_id IS NOT NULL"),
)
# What few tasks have costs the others next to nothing in a partial index.
sa.Index(
    "ix_taskflow_tasks_dead",
    tasks.c.created_at,
    tasks.c.task_id,
    sqlite_where=sa.text(_DEAD),
    postgresql_where=sa.text(_DEAD),
)
for _name, _column in (("parent", "parent_id"), ("group", "group_id"), ("schedule", "schedule"), ("retry", "retry_of")):
    sa.Index(
        f"ix_taskflow_tasks_{_name}",
        tasks.c[_column],
        tasks.c.created_at,
        tasks.c.task_id,
        sqlite_where=sa.text(f"{_column} IS NOT NULL"),
        postgresql_where=sa.text(f"{_column} IS NOT NULL"),
    )

sa.Index(
    "ix_taskflow_tasks_scheduled",
    tasks.c.schedule,
    tasks.c.created_at,
    tasks.c.task_id,
    sqlite_where=sa.text(_SCHEDULED),
    postgresql_where=sa.text(_SCHEDULED),
)

counters = sa.Table(
    "taskflow_counters",
    metadata,
    sa.Column("func_name", StoredText, primary_key=True),
    sa.Column("status", StoredText, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

durations = sa.Table(
    "taskflow_durations",
    metadata,
    sa.Column("func_name", StoredText, primary_key=True),
    sa.Column("bucket", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("seconds", _Seconds, nullable=False),
    sqlite_with_rowid=False,
)

instances = sa.Table(
    "taskflow_instances",
    metadata,
    sa.Column("instance_id", StoredText, primary_key=True),
    sa.Column("host", StoredText, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("pid_started", sa.BigInteger, nullable=False),
    sa.Column("started_at", _Seconds, nullable=False),
    sa.Column("heartbeat_at", _Seconds, nullable=False),
)

meta = sa.Table(
    "taskflow_meta",
    metadata,
    sa.Column("key", StoredText, primary_key=True),
    sa.Column("value", StoredText, nullable=False),
    sa.Column("expires_at", _Seconds),
)

cancels = sa.Table(
    "taskflow_cancels",
    metadata,
    sa.Column("task_id", StoredText, primary_key=True),
    sa.Column("asked_at", _Seconds, nullable=False),
)

numbers = sa.Table(
    "taskflow_numbers",
    metadata,
    sa.Column("host", StoredText, primary_key=True),
    sa.Column("instance_id", StoredText, primary_key=True),
    sa.Column("numbers", StoredText, nullable=False),
    sa.Column("saved_at", _Seconds, nullable=False),
)

audit = sa.Table(
    "taskflow_audit",
    metadata,
    sa.Column("act_id", StoredText, primary_key=True),
    sa.Column("at", _Seconds, nullable=False),
    sa.Column("actor", StoredText, nullable=False),
    sa.Column("action", StoredText, nullable=False),
    sa.Column("target", StoredText, nullable=False),
    sa.Column("detail", StoredText),
    sa.Column("address", StoredText),
)
sa.Index("ix_taskflow_audit_target", audit.c.target, audit.c.act_id)

VERSION_TABLE: Final = "taskflow_alembic_version"
HEAD: Final = "0003"
"""The newest revision in ``migrations/versions``; a test holds it true."""
KNOWN_REVISIONS: Final = frozenset({"0001", "0002", HEAD})
IS_LIVE: Final = sa.text(_LIVE)
IS_PRUNABLE: Final = sa.text(_PRUNABLE)
IS_DEAD: Final = sa.text(_DEAD)
"""Literal text, since a partial index is only used where the query states its condition word for word."""
