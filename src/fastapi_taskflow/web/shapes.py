"""What the API answers, as shapes for its OpenAPI description.

No answer is built or checked with them: that would cost more than the answer. The API fuzz test holds every answer
against them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fastapi_taskflow.task.record import TaskStatus

Instant = datetime | None
"""ISO 8601 in UTC, or null."""


class Shape(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Invalid(Shape):
    """One thing that is wrong with a request: where, and why."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(Shape):
    """Why there is no better answer."""

    detail: str | list[Invalid]


class AttemptShape(Shape):
    """One try before the last one."""

    number: int
    start_time: Instant
    end_time: Instant
    error_type: str | None
    error: str | None
    span_id: str | None


class LogLine(Shape):
    """One line that the task wrote."""

    timestamp: Instant
    level: str
    message: str
    attempt: int
    extra: dict[str, Any] | None


class Task(Shape):
    """One task. Durations are seconds; ``args`` and ``kwargs`` are there where the options and the store allow it."""

    task_id: str
    func_name: str
    status: TaskStatus
    created_at: Instant
    start_time: Instant
    end_time: Instant
    duration: float | None
    run_at: Instant
    expires_at: Instant
    retries_used: int
    attempt: int
    max_attempts: int
    attempts: list[AttemptShape]
    error: str | None
    error_type: str | None
    stacktrace: str | None
    logs: list[LogLine]
    tags: list[str]
    source: str
    priority: int
    executor: str
    queue: str
    progress: float | None
    progress_text: str | None
    result: Any
    idempotency_key: str | None
    retry_of: str | None
    parent_id: str | None
    group_id: str | None
    schedule: str | None
    resolution: str | None
    recoveries: int
    trace_id: str | None
    instance_id: str | None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None


class SpanShape(Shape):
    """One line of a timeline. ``end`` and ``duration`` are null while it lasts."""

    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start: Instant
    end: Instant
    duration: float | None
    status: str
    synthetic: bool
    attributes: dict[str, Any]


class Timeline(Shape):
    """What happened to a task, parents before children."""

    task_id: str
    func_name: str
    status: TaskStatus
    trace_id: str | None
    start: Instant
    end: Instant
    spans: list[SpanShape]


class Changed(Shape):
    """The task that was cancelled, or the new one of a retry."""

    task_id: str
    task: Task


class Started(Changed):
    """A job that has begun: the task that does it."""


class Retried(Shape):
    """A task and its new run."""

    original_task_id: str
    new_task_id: str


class Skipped(Shape):
    """A task that was left as it is."""

    task_id: str
    reason: str


class BulkRetried(Shape):
    """What came of retrying several tasks. ``skipped`` counts the ``reasons``."""

    dispatched: int
    skipped: int
    results: list[Retried]
    reasons: list[Skipped]


class FailedRetried(BulkRetried):
    """What came of retrying the failed tasks; ``more`` if some were beyond the limit of one call."""

    more: bool


class Figures(Shape):
    """Counts and durations, in seconds; null where nothing was measured yet."""

    total: int
    pending: int
    running: int
    success: int
    failed: int
    cancelled: int
    interrupted: int
    rejected: int
    success_rate: float | None = Field(ge=0, le=1)
    avg_duration_seconds: float | None
    p50_duration_seconds: float | None
    p95_duration_seconds: float | None
    p99_duration_seconds: float | None


class Metrics(Figures):
    """The figures of all tasks, and of each function's."""

    functions: dict[str, Figures]


class FunctionShape(Shape):
    """A function. One that only the history knows has no more than its name and figures."""

    name: str
    registered: bool
    metrics: Figures
    function: str | None = None
    executor: str | None = None
    queue: str | None = None
    retries: int | None = None
    delay: float | None = None
    backoff: float | None = None
    max_delay: float | None = None
    jitter: float | None = None
    timeout: float | None = None
    expires: float | None = None
    unique_for: float | None = None
    priority: int | None = None
    persist: bool | None = None
    requeue_on_interrupt: bool | None = None


class QueueShape(Shape):
    """A queue. The limits hold for each process; what waits and runs is this one's."""

    name: str
    concurrency: int | None
    max_size: int | None
    rate_limit: str | None
    paused: bool
    pending: int
    waiting: int
    running: int
    declared: bool
    stored: dict[str, Any]


class Alive(Shape):
    """That the event loop turns."""

    status: Literal["ok", "failing"]
    reasons: list[str]


class Health(Alive):
    """How the application is. The counts are this process's."""

    store: Literal["ok", "failing"]
    writes: Literal["ok", "failing"]
    backlog: int
    pending: int
    running: int


class InstanceShape(Shape):
    """A process that works on tasks. ``age`` is seconds since its last sign of life, ``me`` the one that answers."""

    instance_id: str
    host: str
    pid: int
    started_at: Instant
    heartbeat_at: Instant
    age: float
    me: bool


class ScheduleShape(Shape):
    """A function that runs by the clock: by ``every``, in seconds, or by ``cron``. ``jitter`` is seconds."""

    name: str
    function: str
    every: float | None
    cron: str | None
    timezone: str | None
    jitter: float
    overlap: Literal["skip", "queue", "allow"]
    misfire: Literal["run_once", "skip", "run_all"]
    run_on_startup: bool
    tags: list[str]
    paused: bool
    next_runs: list[datetime]
    last_slot: Instant
    last_task_id: str | None
    last_task_status: TaskStatus | None


class ScheduledOnceShape(Shape):
    """A task that waits for its time."""

    task_id: str
    run_key: str | None
    func_name: str
    run_at: Instant
    created_at: Instant
    tags: list[str]
    queue: str
    priority: int


class Deleted(Shape):
    """What was deleted; ``more`` if some were beyond the limit of one call."""

    deleted: int
    more: bool


class ActShape(Shape):
    """What somebody did. ``actor`` is null where nobody has to sign in."""

    act_id: str
    timestamp: Instant
    actor: str | None
    action: str
    target: str | None
    detail: Any
    address: str | None


class SignedIn(Shape):
    """Who is signed in now; the session is in the cookie."""

    user: str
