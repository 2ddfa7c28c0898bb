"""The record of one task: frozen facts, from which every view, row and event is made."""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple


class TaskStatus(StrEnum):
    """Where a task is in its life. The values are what the store and the API show."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    REJECTED = "rejected"


class Resolution(StrEnum):
    """What was decided about a task that did not succeed."""

    RETRIED = "retried"
    DISCARDED = "discarded"


LIVE: Final = frozenset({TaskStatus.PENDING, TaskStatus.RUNNING})
"""Statuses of a task that waits or runs."""

FINISHED: Final = frozenset(TaskStatus) - LIVE
"""Statuses that end a task's life."""

DEAD: Final = frozenset({TaskStatus.FAILED, TaskStatus.INTERRUPTED})
"""Statuses of dead letters: tasks that somebody has to decide about."""

RETRYABLE: Final = DEAD | {TaskStatus.CANCELLED, TaskStatus.REJECTED}
"""Statuses of tasks that may be run again by hand."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line that the task wrote with ``task_log``.

    Attributes:
        at: Seconds since the Unix epoch.
        level: A standard level name in lower case, such as ``info``.
        message: The text.
        attempt: The attempt that wrote it, from 1.
        extra: Further JSON-able fields, or None.
    """

    at: float
    level: str
    message: str
    attempt: int = 1
    extra: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One finished try that was not the last one.

    Attributes:
        number: From 1.
        start_time: Seconds since the Unix epoch.
        end_time: Seconds since the Unix epoch.
        error_type: Fully qualified name of the exception's class, if it failed.
        error: The exception's message, if it failed.
        span_id: 16 hex digits of its process span, if it was recorded.
    """

    number: int
    start_time: float
    end_time: float
    error_type: str | None = None
    error: str | None = None
    span_id: str | None = None


@dataclass(frozen=True, slots=True)
class SpanFact:
    """A span that ran under a process span of the task, as kept with the record.

    Attributes:
        span_id: 16 hex digits.
        parent_id: 16 hex digits of its parent.
        name: The span's name.
        kind: ``internal``, ``client``, ``server``, ``producer`` or ``consumer``.
        start_time: Seconds since the Unix epoch.
        end_time: Seconds since the Unix epoch.
        status: ``unset``, ``ok`` or ``error``.
        attributes: JSON-able, bounded in number and length.
    """

    span_id: str
    parent_id: str
    name: str
    kind: str
    start_time: float
    end_time: float
    status: str = "unset"
    attributes: dict[str, Any] = field(default_factory=dict)


class TaskRecord(NamedTuple):
    """Everything that is known of one task. A change makes a new record with ``version + 1``.

    Times are float seconds since the Unix epoch. It is a named tuple, not a frozen dataclass, because three of them are
    made for each task on the request's way: making one takes a third of the time.

    Attributes:
        task_id: UUID text; time-ordered unless the task has an idempotency key.
        func_name: The registered name of the task.
        status: See `TaskStatus`.
        created_at: When it was added.
        version: From 1; the store refuses a record that is not newer than its own.
        owner: The instance that holds the task, empty if none does.
        queue: The queue's name.
        priority: Higher runs first.
        source: ``request``, ``manual`` (enqueue), ``retry``, ``scheduled``.
        executor: ``async`` or ``thread`` (later ``process``).
        attempt: The current or last attempt, from 1; 0 before the first start.
        max_attempts: 1 plus the retries allowed.
        run_at: Not to be started before, or None.
        ready_at: When it last became runnable: ``created_at``, or ``run_at`` of a retry. Queue wait counts from here.
        start_time: When the current or last attempt began.
        end_time: When the task ended.
        error: The last exception's message.
        error_type: The last exception's class, fully qualified.
        stacktrace: The last exception's traceback as text.
        tags: Text labels given to ``add_task``.
        idempotency_key: At most one task a function and key exists.
        payload: The arguments as stored text, see ``task.payload``; None in a store that is not persistent.
        retry_of: The task that this one retries by hand.
        requeue_on_interrupt: Whether a run cut off by a crash runs again.
        recoveries: How often its process stopped while it ran.
        traceparent: W3C trace context of the send span, or None.
        tracestate: W3C trace state, or None.
        span_id: 16 hex digits of the current or last process span.
        target: ``module:qualname`` of the function, by which a new process finds it; None if it cannot be found again
            (a closure, a lambda, a method of an object that cannot be stored).
        attempts: The tries before the current one.
        logs: What ``task_log`` wrote, bounded.
        spans: The user's own spans, once the task has finished.
        result: The return value as stored text, or None.
        progress: 0 to 1, or None.
        progress_text: What the task said of its progress, or None.
        resolution: What an operator did about a failed or interrupted task: ``retried`` or ``discarded``; None for
            one that still waits for a decision.
        expires_at: Not to be started at this time or later, or None.
        parent_id: The task that this one follows or belongs to, or None.
        group_id: The group that it is a member of, or None.
        schedule: The name of the schedule that added it, or None.
        follow: What is to be added when it ends, as stored text, or None.
    """

    task_id: str
    func_name: str
    status: TaskStatus
    created_at: float
    version: int = 1
    owner: str = ""
    queue: str = "default"
    priority: int = 0
    source: str = "request"
    executor: str = "async"
    attempt: int = 0
    max_attempts: int = 1
    run_at: float | None = None
    ready_at: float = 0.0
    start_time: float | None = None
    end_time: float | None = None
    error: str | None = None
    error_type: str | None = None
    stacktrace: str | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    payload: str | None = None
    retry_of: str | None = None
    requeue_on_interrupt: bool = False
    recoveries: int = 0
    traceparent: str | None = None
    tracestate: str | None = None
    span_id: str | None = None
    target: str | None = None
    attempts: tuple[Attempt, ...] = ()
    logs: tuple[LogEntry, ...] = ()
    spans: tuple[SpanFact, ...] = ()
    result: str | None = None
    progress: float | None = None
    progress_text: str | None = None
    resolution: str | None = None
    expires_at: float | None = None
    parent_id: str | None = None
    group_id: str | None = None
    schedule: str | None = None
    follow: str | None = None

    @property
    def duration(self) -> float | None:
        """Seconds that the last attempt took, or None while it has not ended."""
        if self.start_time is None or self.end_time is None:
            return None
        return max(0.0, self.end_time - self.start_time)

    @property
    def retries_used(self) -> int:
        """Attempts after the first one."""
        return max(0, self.attempt - 1)

    @property
    def trace_id(self) -> str | None:
        """32 hex digits of the trace that the task belongs to, or None."""
        return self.traceparent[3:35] if self.traceparent else None

    @property
    def finished(self) -> bool:
        """Whether the task's life has ended."""
        return self.status not in LIVE

    def evolve(self, **changes: Any) -> TaskRecord:
        """Return the next version of this record with ``changes``."""
        # Not by ``_replace``, which takes a step for each field, whatever has changed.
        values: list[Any] = list(self)
        values[_VERSION] += 1
        for name, value in changes.items():
            values[_POSITIONS[name]] = value
        return _new(TaskRecord, values)


_new: Final = tuple.__new__
_POSITIONS: Final = {name: position for position, name in enumerate(TaskRecord._fields)}
_VERSION: Final = _POSITIONS["version"]


KEY_NAMESPACE: Final = uuid.UUID("a4cca23b-7614-5c7e-81d1-a477f479ef8b")


def new_task_id() -> str:
    """Return a new UUID of version 7 (RFC 9562): later ids sort after earlier ones, so index pages fill in order."""
    bits = _random.getrandbits(74)
    head = f"{time.time_ns() // 1_000_000:012x}"
    tail = f"{0x8000 | bits & 0x3FFF:04x}-{bits >> 14 & 0xFFFF_FFFF_FFFF:012x}"
    return f"{head[:8]}-{head[8:]}-7{bits >> 62:03x}-{tail}"


# Seeded from the system, and again in a forked child; a system call for each id would cost three times as much.
_random: Final = random.Random()  # noqa: S311 - ids are to be distinct, not secret
os.register_at_fork(after_in_child=_random.seed)


def keyed_task_id(func_name: str, idempotency_key: str) -> str:
    """Return the one id that a function's task with this key has, in every process.

    Because the key decides the id, the primary key of the store makes the key unique, and ``add_task`` can
    return the right id without asking the store.
    """
    return str(uuid.uuid5(KEY_NAMESPACE, json.dumps((func_name, idempotency_key))))


def windowed_key(same: str, *, seconds: float, now: float) -> str:
    """Return the key that is the same for all calls of one window.

    Windows follow each other from the Unix epoch on, as in River: the key alone says which one is meant, and no
    instance has to ask what the others have added.

    Args:
        same: What makes two calls the same.
        seconds: The length of a window.
        now: Seconds since the Unix epoch.
    """
    return f"{same}@{seconds:g}s/{int(now // seconds)}"
