"""Whatever happens to a task, in whatever order, its record stays sound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastapi_taskflow.errors import InvalidTransitionError
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.outcome import Failure
from fastapi_taskflow.task.record import TaskRecord, TaskStatus

BOOM = Failure("ValueError", "boom")
STEPS = {
    "start": lambda r, at: lifecycle.start(r, at=at, owner="me"),
    "succeed": lambda r, at: lifecycle.succeed(r, at=at),
    "fail": lambda r, at: lifecycle.fail(r, BOOM, at=at),
    "retry": lambda r, at: lifecycle.retry(r, BOOM, at=at, run_at=at),
    "cancel": lambda r, at: lifecycle.cancel(r, at=at),
    "reject": lambda r, at: lifecycle.reject(r, at=at, reason="no"),
    "interrupt": lambda r, at: lifecycle.interrupt(r, at=at, owner="me", reason="gone"),
    "requeue": lambda r, at: lifecycle.requeue(r, at=at, owner="other"),
}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_any_sequence_of_steps_keeps_the_record_sound(names: list[str]) -> None:
    """Versions rise by one a step, attempts match what was started, an end time is there exactly at the end."""
    record = TaskRecord("id", "f", TaskStatus.PENDING, 0.0)
    starts = 0
    for at, name in enumerate(names, start=1):
        before = record
        try:
            record = STEPS[name](record, float(at))
        except InvalidTransitionError:
            assert record is before
            continue
        starts += name == "start"
        assert record.version == before.version + 1
        assert not before.finished
        assert record.attempt == starts
        assert (record.end_time is not None) == record.finished
        assert (record.start_time is not None) >= (record.status is TaskStatus.RUNNING)
        assert [attempt.number for attempt in record.attempts] == sorted({a.number for a in record.attempts})
        assert len(record.attempts) <= record.attempt
