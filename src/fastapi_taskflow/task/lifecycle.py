"""The state machine of a task. Every change of status goes through this table.

```
pending ──start──▶ running ──succeed──▶ success
   │                 ├──fail──────────▶ failed
   │                 ├──retry─────────▶ pending   (attempt + 1 later, at run_at)
   │                 ├──snooze────────▶ pending   (it cannot do its work before run_at)
   │                 ├──cancel────────▶ cancelled
   │                 ├──interrupt─────▶ interrupted
   │                 └──requeue───────▶ pending   (recovered after a crash)
   ├──cancel──▶ cancelled
   ├──reject──▶ rejected
   ├──fail────▶ failed        (cannot be started: unknown function, unreadable arguments, too many recoveries)
   ├──interrupt▶ interrupted  (its instance died and requeue is off)
   └──requeue─▶ pending       (taken over by another instance)
```
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.errors import InvalidTransitionError
from fastapi_taskflow.task.record import Attempt, TaskRecord, TaskStatus

if TYPE_CHECKING:
    from fastapi_taskflow.task.outcome import Failure


class Transition(StrEnum):
    """What can happen to a task."""

    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"
    SNOOZE = "snooze"
    CANCEL = "cancel"
    INTERRUPT = "interrupt"
    REJECT = "reject"
    REQUEUE = "requeue"


SNOOZED: Final = "snoozed"
"""What is told as the error of an attempt that a task ended with ``Snooze``."""
MAX_SNOOZED_ATTEMPTS: Final = 20
MAX_SNOOZED_LINES: Final = 1_000

_P, _R = TaskStatus.PENDING, TaskStatus.RUNNING
TABLE: Final = {
    (_P, Transition.START): _R,
    (_P, Transition.CANCEL): TaskStatus.CANCELLED,
    (_P, Transition.REJECT): TaskStatus.REJECTED,
    (_P, Transition.FAIL): TaskStatus.FAILED,
    (_P, Transition.INTERRUPT): TaskStatus.INTERRUPTED,
    (_P, Transition.REQUEUE): _P,
    (_R, Transition.SUCCEED): TaskStatus.SUCCESS,
    (_R, Transition.FAIL): TaskStatus.FAILED,
    (_R, Transition.RETRY): _P,
    (_R, Transition.SNOOZE): _P,
    (_R, Transition.CANCEL): TaskStatus.CANCELLED,
    (_R, Transition.INTERRUPT): TaskStatus.INTERRUPTED,
    (_R, Transition.REQUEUE): _P,
}
"""From a status, by a transition, to a status. What is not here cannot happen."""


def target(status: TaskStatus, transition: Transition) -> TaskStatus:
    """Return the status that ``transition`` leads to.

    Raises:
        InvalidTransitionError: If ``status`` does not allow it.
    """
    try:
        return TABLE[status, transition]
    except KeyError:
        allowed = ", ".join(sorted({s.value for s, t in TABLE if t is transition}))
        message = f"cannot {transition.value} a task that is {status.value}; only one that is {allowed}"
        raise InvalidTransitionError(message) from None


def start(record: TaskRecord, *, at: float, owner: str, span_id: str | None = None) -> TaskRecord:
    """Begin the next attempt."""
    return record.evolve(
        status=target(record.status, Transition.START),
        owner=owner,
        attempt=record.attempt + 1,
        run_at=None,
        start_time=at,
        end_time=None,
        span_id=span_id,
    )


def succeed(record: TaskRecord, *, at: float, result: str | None = None) -> TaskRecord:
    """End the task well. The error of an earlier attempt stays with that attempt."""
    return record.evolve(
        status=target(record.status, Transition.SUCCEED),
        end_time=at,
        error=None,
        error_type=None,
        stacktrace=None,
        result=result,
    )


def fail(record: TaskRecord, failure: Failure, *, at: float) -> TaskRecord:
    """End the task with ``failure``."""
    return record.evolve(
        status=target(record.status, Transition.FAIL),
        end_time=at,
        error=failure.message,
        error_type=failure.error_type,
        stacktrace=failure.stacktrace,
    )


def retry(record: TaskRecord, failure: Failure, *, at: float, run_at: float) -> TaskRecord:
    """Let a failed attempt be followed by another one at ``run_at``."""
    return record.evolve(
        status=target(record.status, Transition.RETRY),
        run_at=run_at,
        ready_at=run_at,
        start_time=None,
        end_time=None,
        error=failure.message,
        error_type=failure.error_type,
        stacktrace=failure.stacktrace,
        attempts=(*record.attempts, _attempt(record, at, failure)),
    )


def snooze(record: TaskRecord, *, at: float, run_at: float) -> TaskRecord:
    """Let the task wait until ``run_at``, at its own wish. That is no failure, and uses up no retry.

    A task may do so for years: of the attempts that ended so, and of the lines, only the newest are kept.
    """
    ended = _attempt(record, at, None, instead=SNOOZED)
    return record.evolve(
        status=target(record.status, Transition.SNOOZE),
        run_at=run_at,
        ready_at=run_at,
        start_time=None,
        end_time=None,
        max_attempts=record.max_attempts + 1,
        attempts=_without_old_snoozes((*record.attempts, ended)),
        logs=record.logs[-MAX_SNOOZED_LINES:],
    )


def _without_old_snoozes(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    snoozed = [attempt for attempt in attempts if attempt.error == SNOOZED and attempt.error_type is None]
    dropped = set(snoozed[:-MAX_SNOOZED_ATTEMPTS])
    return tuple(attempt for attempt in attempts if attempt not in dropped)


def cancel(record: TaskRecord, *, at: float, reason: str | None = None) -> TaskRecord:
    """End the task because somebody asked for it."""
    return record.evolve(status=target(record.status, Transition.CANCEL), end_time=at, run_at=None, error=reason)


def reject(record: TaskRecord, *, at: float, reason: str) -> TaskRecord:
    """End the task before it began, because it was not accepted after all."""
    return record.evolve(status=target(record.status, Transition.REJECT), end_time=at, run_at=None, error=reason)


def interrupt(record: TaskRecord, *, at: float, owner: str, reason: str) -> TaskRecord:
    """Park the task for an operator: its process went away and it is not to run again by itself."""
    return record.evolve(
        status=target(record.status, Transition.INTERRUPT), end_time=at, run_at=None, owner=owner, error=reason
    )


def requeue(record: TaskRecord, *, at: float, owner: str) -> TaskRecord:
    """Take the task over from an instance that went away. A run that was cut off becomes an attempt of its own."""
    cut_off = record.status is TaskStatus.RUNNING
    return record.evolve(
        status=target(record.status, Transition.REQUEUE),
        owner=owner,
        recoveries=record.recoveries + 1 if cut_off else record.recoveries,
        ready_at=record.run_at or at,
        start_time=None,
        max_attempts=record.max_attempts + 1 if cut_off else record.max_attempts,
        attempts=(*record.attempts, _attempt(record, at, None)) if cut_off else record.attempts,
    )


CUT_OFF: Final = "the process stopped during this attempt"


def _attempt(record: TaskRecord, at: float, failure: Failure | None, *, instead: str = CUT_OFF) -> Attempt:
    return Attempt(
        number=record.attempt,
        start_time=record.start_time if record.start_time is not None else at,
        end_time=at,
        error_type=failure.error_type if failure else None,
        error=failure.message if failure else instead,
        span_id=record.span_id,
    )
