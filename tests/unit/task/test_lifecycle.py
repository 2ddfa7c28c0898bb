"""The state machine: each allowed change, each refused one."""

from __future__ import annotations

import itertools

import pytest

from fastapi_taskflow.errors import InvalidTransitionError
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.lifecycle import TABLE, Transition, target
from fastapi_taskflow.task.outcome import Failure
from fastapi_taskflow.task.record import FINISHED, TaskRecord, TaskStatus

BOOM = Failure("ValueError", "boom", "Traceback…")


@pytest.fixture
def pending() -> TaskRecord:
    """Return a pending record."""
    return TaskRecord("id", "f", TaskStatus.PENDING, 1.0, max_attempts=3, ready_at=1.0)


@pytest.fixture
def running(pending: TaskRecord) -> TaskRecord:
    """Return a running record."""
    return lifecycle.start(pending, at=2.0, owner="me", span_id="s1")


def test_the_table_is_complete() -> None:
    """What the table does not name is refused, with a text that says what is allowed."""
    for status, transition in itertools.product(TaskStatus, Transition):
        if (status, transition) in TABLE:
            assert target(status, transition) is TABLE[status, transition]
        else:
            refused = f"cannot {transition.value} a task that is {status.value}"
            with pytest.raises(InvalidTransitionError, match=refused):
                target(status, transition)


def test_nothing_leaves_a_finished_status() -> None:
    """An ended task stays ended."""
    assert not [key for key in TABLE if key[0] in FINISHED]


def test_start(running: TaskRecord) -> None:
    """The first attempt is number 1."""
    assert (running.status, running.attempt, running.start_time, running.owner) == (TaskStatus.RUNNING, 1, 2.0, "me")
    assert running.span_id == "s1"


def test_succeed_clears_the_error_of_an_earlier_attempt(running: TaskRecord) -> None:
    """The attempt keeps it."""
    again = lifecycle.start(lifecycle.retry(running, BOOM, at=3.0, run_at=4.0), at=4.0, owner="me")
    done = lifecycle.succeed(again, at=5.0)
    assert (done.status, done.error, done.error_type, done.stacktrace) == (TaskStatus.SUCCESS, None, None, None)
    assert (done.attempts[0].error, done.retries_used, done.duration) == ("boom", 1, 1.0)


def test_retry_waits_as_pending_with_its_due_time(running: TaskRecord) -> None:
    """The attempt that failed is kept, and queue wait counts from the due time."""
    waits = lifecycle.retry(running, BOOM, at=3.0, run_at=13.0)
    assert (waits.status, waits.run_at, waits.ready_at, waits.start_time) == (TaskStatus.PENDING, 13.0, 13.0, None)
    (attempt,) = waits.attempts
    assert (attempt.number, attempt.start_time, attempt.end_time) == (1, 2.0, 3.0)
    assert (attempt.error_type, attempt.span_id) == ("ValueError", "s1")


def test_fail(running: TaskRecord) -> None:
    """The failure is told in three fields."""
    failed = lifecycle.fail(running, BOOM, at=3.0)
    assert (failed.error, failed.error_type, failed.stacktrace) == ("boom", "ValueError", "Traceback…")


def test_requeue_of_a_run_that_was_cut_off_costs_no_retry(running: TaskRecord) -> None:
    """The cut-off run becomes an attempt, and the task may be tried as often as before."""
    again = lifecycle.requeue(running, at=9.0, owner="other")
    assert (again.status, again.owner, again.recoveries, again.max_attempts) == (TaskStatus.PENDING, "other", 1, 4)
    assert again.attempts[0].error_type is None
    assert again.ready_at == 9.0


def test_requeue_of_a_waiting_task_keeps_its_due_time(pending: TaskRecord) -> None:
    """A retry that was due later still is."""
    waiting = pending.evolve(run_at=50.0)
    again = lifecycle.requeue(waiting, at=9.0, owner="other")
    assert (again.run_at, again.ready_at, again.max_attempts, again.attempts) == (50.0, 50.0, 3, ())
    assert again.recoveries == 0


def test_cancel_reject_and_interrupt_say_why(pending: TaskRecord) -> None:
    """The reason is the error text."""
    assert lifecycle.cancel(pending, at=2.0, reason="asked").error == "asked"
    assert lifecycle.reject(pending, at=2.0, reason="full").status is TaskStatus.REJECTED
    assert lifecycle.interrupt(pending, at=2.0, owner="o", reason="gone").owner == "o"
