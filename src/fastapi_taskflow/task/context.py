"""What a running task knows of itself, and how it speaks: its context, ``task_log()`` and ``task_progress()``."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from fastapi_taskflow import clock
from fastapi_taskflow.task.outcome import storable_text
from fastapi_taskflow.task.progress import Progress, progress_of
from fastapi_taskflow.task.record import LogEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_taskflow.task.record import SpanFact, TaskRecord

MAX_LOG_CHARS = 8_192
MAX_LOG_ENTRIES = 1_000

logger = logging.getLogger("fastapi_taskflow.task")


class LineRules(Protocol):
    """What is done with lines beside keeping them."""

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the further fields of a line as they may be shown."""

    def stored(self, line: LogEntry) -> LogEntry:
        """Return a line as it is stored."""


class TaskContext:
    """The running attempt, as the task's own code sees it. Safe to use from the task's thread.

    Attributes:
        task_id: The task's id. It stays the same through retries and restarts.
        func_name: The task's registered name.
        attempt: From 1.
        max_attempts: 1 plus the retries allowed.
        tags: The tags given to ``add_task``.
        idempotency_key: The key given to ``add_task``, or None.
        trace_id: 32 hex digits, or None without a trace.
        span_id: 16 hex digits of this attempt's process span, or None.
        progress: What the task told last with `task_progress`, or None.
        spans: The user's own spans, where the attempt runs in another process.
    """

    __slots__ = (
        "_cancel_requested", "_cancel_seen", "_dropped_logs", "_lines", "_logs", "_on_log", "_on_progress",
        "_record", "attempt", "func_name", "idempotency_key", "max_attempts", "progress", "span_id", "spans", "tags",
        "task_id", "trace_id",
    )  # fmt: skip

    def __init__(
        self,
        record: TaskRecord,
        *,
        on_log: Callable[[LogEntry], None] | None = None,
        on_progress: Callable[[], None] | None = None,
        lines: LineRules | None = None,
    ) -> None:
        self._record = record
        self._lines = lines
        self.task_id = record.task_id
        self.func_name = record.func_name
        self.attempt = record.attempt
        self.max_attempts = record.max_attempts
        self.tags = record.tags
        self.idempotency_key = record.idempotency_key
        self.trace_id = record.trace_id
        self.span_id = record.span_id
        self.progress: Progress | None = None
        self.spans: tuple[SpanFact, ...] = ()
        self._on_log = on_log
        self._on_progress = on_progress
        self._logs: list[LogEntry] = []
        self._dropped_logs = 0
        self._cancel_requested = False
        self._cancel_seen = False

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked this task to stop. A sync task looks here now and then, and returns early.

        A task that saw True here and then ends is reported as cancelled; one that never looked ran to its end and
        is reported as what it became.
        """
        if self._cancel_requested:
            self._cancel_seen = True
        return self._cancel_requested

    @property
    def cancel_seen(self) -> bool:
        """Whether the task was told of the cancellation by looking at `cancelled`."""
        return self._cancel_seen

    @property
    def logs(self) -> tuple[LogEntry, ...]:
        """What this attempt wrote, at most ``MAX_LOG_ENTRIES``."""
        return tuple(self._logs)

    @property
    def origin(self) -> TaskRecord:
        """The record as the attempt began, without what may be large: enough to make this context again elsewhere."""
        return self._record._replace(payload=None, logs=(), attempts=(), spans=(), follow=None, stacktrace=None)

    def request_cancel(self) -> None:
        """Ask the task to stop."""
        self._cancel_requested = True

    def tell_progress(self, done: float, total: float | str | None = None, text: str | None = None) -> None:
        """Tell how far the task is; see `task_progress`."""
        self.keep_progress(progress_of(done, total, text))

    def keep_spans(self, spans: tuple[SpanFact, ...]) -> None:
        """Take note of the user's spans in another process."""
        rules = self._lines
        if rules is not None:
            spans = tuple(replace(span, attributes=rules.fields(span.attributes)) for span in spans)
        self.spans = spans

    def keep_progress(self, progress: Progress) -> None:
        """Take note of how far the task is, also where it runs in another process."""
        self.progress = progress
        if self._on_progress is not None:
            self._on_progress()

    def log(self, message: object, *, level: str = "info", **extra: Any) -> None:
        """Write a line; see `task_log`."""
        number = _level_number(level)
        text = storable_text(str(message), MAX_LOG_CHARS)
        self.keep_line(LogEntry(clock.now(), level.lower(), text, self.attempt, extra or None), number)

    def keep_line(self, entry: LogEntry, number: int | None = None) -> None:
        """Take note of a line, also where the task runs in another process.

        Args:
            entry: The line.
            number: Its level as the standard library numbers it, where that is at hand.
        """
        if entry.extra and self._lines is not None:
            entry = replace(entry, extra=self._lines.fields(entry.extra))
        if len(self._logs) < MAX_LOG_ENTRIES:
            self._logs.append(entry if self._lines is None else self._lines.stored(entry))
        elif not self._dropped_logs:
            self._dropped_logs = 1
            note = f"more than {MAX_LOG_ENTRIES} lines: further ones go to the log file and logging only"
            self._logs[-1] = LogEntry(clock.now(), "warning", note, self.attempt)
        fields = {
            "task_id": self.task_id,
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "task_extra": entry.extra or {},
        }
        logger.log(
            number or _level_number(entry.level), "%s", entry.message, extra={**fields, "func_name_": self.func_name}
        )
        if self._on_log is not None:
            self._on_log(entry)


_current: ContextVar[TaskContext | None] = ContextVar("taskflow_task_context", default=None)
set_task_context = _current.set
reset_task_context = _current.reset


def get_task_context() -> TaskContext | None:
    """Return the context of the task that runs here, or None outside of a task."""
    return _current.get()


def task_log(message: object, *, level: str = "info", **extra: Any) -> None:
    """Write one line of the running task: to its record, to standard logging and to the log file.

    Outside of a task the line goes to standard logging alone, so that shared code may use it.

    Args:
        message: The text.
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        **extra: Further fields, kept with the line.

    Raises:
        ValueError: If ``level`` is none of these.
    """
    context = _current.get()
    if context is None:
        logger.log(_level_number(level), "%s", message, extra={"task_extra": extra})
    else:
        context.log(message, level=level, **extra)


def task_progress(done: float, total: float | str | None = None, text: str | None = None) -> None:
    """Tell how far the running task is: on its page at once, in the store soon after.

    ``task_progress(0.4)``, ``task_progress(0.4, "resizing")``, ``task_progress(3, 12)`` and
    ``task_progress(3, 12, "resizing")`` are the ways to call it. It may be called as often as one likes: what follows
    within half a second is stored once. Outside of a task only the values are checked.

    Args:
        done: The part that is done, 0 to 1; with ``total`` the number of things that are.
        total: The number of things to do, above 0. Text here is ``text``.
        text: What is being done.

    Raises:
        ValueError: If the part is not between 0 and 1, or a number is none.
    """
    context = _current.get()
    if context is None:
        progress_of(done, total, text)
    else:
        context.tell_progress(done, total, text)


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def _level_number(level: str) -> int:
    try:
        return _LEVELS[level.lower()]
    except (KeyError, AttributeError):
        msg = f"level must be one of {', '.join(_LEVELS)}, not {level!r}"
        raise ValueError(msg) from None
