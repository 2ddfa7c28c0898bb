"""The states that a task went through, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi_taskflow.task.record import TaskRecord


@dataclass(frozen=True, slots=True)
class Moment:
    """One change of state.

    Attributes:
        label: What happened.
        at: Seconds since the Unix epoch.
        status: The status from then on; colours the mark.
        after: Seconds since the moment before, or None for the first.
        ahead: Whether it is still to come.
    """

    label: str
    at: float
    status: str
    after: float | None = None
    ahead: bool = False


def moments(record: TaskRecord) -> tuple[Moment, ...]:
    """Return what is known to have happened, in order."""
    steps = list(_steps(record))
    before: tuple[Moment | None, ...] = (None, *steps)
    return tuple(
        Moment(
            step.label,
            step.at,
            step.status,
            max(0.0, step.at - previous.at) if previous is not None else None,
            step.ahead,
        )
        for previous, step in zip(before, steps, strict=False)
    )


def _steps(record: TaskRecord) -> Iterator[Moment]:
    several = record.max_attempts > 1 or bool(record.attempts)
    yield Moment("Added", record.created_at, TaskStatus.PENDING)
    for attempt in record.attempts:
        yield Moment(f"Attempt {attempt.number}", attempt.start_time, TaskStatus.RUNNING)
        failed = attempt.error_type is not None
        outcome = "failed" if failed else "was cut off"
        status = TaskStatus.FAILED if failed else TaskStatus.INTERRUPTED
        yield Moment(f"Attempt {attempt.number} {outcome}", attempt.end_time, status)
    if record.start_time is not None:
        label = f"Attempt {record.attempt}" if several else "Started"
        yield Moment(label, record.start_time, TaskStatus.RUNNING)
    elif record.status is TaskStatus.PENDING and record.run_at is not None:
        yield Moment("Next attempt", record.run_at, TaskStatus.PENDING, ahead=True)
    if record.finished and record.end_time is not None:
        yield Moment(record.status.value.capitalize(), record.end_time, record.status)
