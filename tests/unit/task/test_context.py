"""``task_log`` and ``get_task_context`` inside and outside of a task."""

from __future__ import annotations

import logging

import pytest

from fastapi_taskflow.task.context import (
    MAX_LOG_ENTRIES,
    TaskContext,
    get_task_context,
    reset_task_context,
    set_task_context,
    task_log,
)
from fastapi_taskflow.task.record import LogEntry, TaskRecord, TaskStatus

RECORD = TaskRecord("id-1", "f", TaskStatus.RUNNING, 1.0, attempt=2, traceparent=f"00-{'a' * 32}-{'b' * 16}-01")


def test_outside_of_a_task_a_line_goes_to_logging_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Shared code may call it anywhere."""
    caplog.set_level(logging.INFO, "fastapi_taskflow.task")
    assert get_task_context() is None
    task_log("hello")
    assert caplog.messages == ["hello"]


def test_a_line_is_kept_told_and_logged_with_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    """The record, the observer and standard logging get the same line."""
    caplog.set_level(logging.DEBUG, "fastapi_taskflow.task")
    told: list[LogEntry] = []
    context = TaskContext(RECORD, on_log=told.append)
    token = set_task_context(context)
    try:
        task_log("half\0way", level="WARNING", step=3)
    finally:
        reset_task_context(token)
    (line,) = context.logs
    assert told == [line]
    assert (line.message, line.level, line.attempt, line.extra) == ("half\\x00way", "warning", 2, {"step": 3})
    (logged,) = caplog.records
    assert (logged.levelno, logged.task_id, logged.trace_id) == (logging.WARNING, "id-1", "a" * 32)  # type: ignore[attr-defined]


def test_an_unknown_level_is_refused_with_the_allowed_ones() -> None:
    """Also outside of a task."""
    with pytest.raises(ValueError, match="level must be one of debug, info, warning, error, critical, not 'loud'"):
        task_log("x", level="loud")
    with pytest.raises(ValueError, match="level must be one of"):
        TaskContext(RECORD).log("x", level="loud")


def test_lines_are_bounded_and_the_bound_is_told() -> None:
    """A task that logs for ever does not fill the memory."""
    context = TaskContext(RECORD)
    for number in range(MAX_LOG_ENTRIES + 5):
        context.log(number)
    assert len(context.logs) == MAX_LOG_ENTRIES
    assert "further ones go to the log file" in context.logs[-1].message


def test_cancelled_remembers_that_the_task_looked() -> None:
    """Only a look after the request counts."""
    context = TaskContext(RECORD)
    assert (context.cancelled, context.cancel_seen) == (False, False)
    context.request_cancel()
    assert context.cancel_seen is False
    assert (context.cancelled, context.cancel_seen) == (True, True)
