"""What becomes of a task after an attempt: plain rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.control import GiveUp, Retry, Snooze

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.task.outcome import Failure
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.task.retry import RetryPolicy

CANCELLED_REASON: Final = "cancelled while it ran"
SHUT_DOWN: Final = "the service was shut down while it ran"


@dataclass(frozen=True, slots=True)
class Ending:
    """How the call ended.

    Attributes:
        error: What it raised, or None.
        failure: ``error`` as facts; None if it ended well, snoozed, or was stopped from outside.
        value: What it returned.
    """

    error: BaseException | None = None
    failure: Failure | None = None
    value: Any = None

    @property
    def snoozed(self) -> bool:
        """Whether the task put itself off."""
        return isinstance(self.error, Snooze)

    @property
    def stopped(self) -> bool:
        """Whether it was stopped from outside."""
        return self.error is not None and self.failure is None and not self.snoozed


WELL: Final = Ending()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What there is to know beside the ending.

    Attributes:
        at: Seconds since the Unix epoch.
        owner: The id of this instance.
        policy: The task's retry policy.
        cancel_asked: Whether somebody asked for its cancellation.
        cancel_seen: Whether the task's code has looked, and knows.
        chance: Returns a random number, from 0 up to but not including 1.
    """

    at: float
    owner: str
    policy: RetryPolicy
    cancel_asked: bool
    cancel_seen: bool
    chance: Callable[[], float]


def verdict(record: TaskRecord, ending: Ending, around: Circumstances, *, result: str | None = None) -> TaskRecord:
    """Return the record of a running task after its attempt.

    Args:
        record: As it ran.
        ending: How the call ended.
        around: What else there is to know.
        result: What it returned as stored text, or None.
    """
    at = around.at
    if around.cancel_asked and (ending.stopped or ending.snoozed or around.cancel_seen):
        return lifecycle.cancel(record, at=at, reason=CANCELLED_REASON)
    if ending.stopped:
        return _cut_off(record, around)
    if isinstance(ending.error, Snooze):
        return lifecycle.snooze(record, at=at, run_at=at + ending.error.seconds)
    if ending.failure is None:
        return lifecycle.succeed(record, at=at, result=result)
    return _failed(record, ending.failure, ending.error, around)


def _cut_off(record: TaskRecord, around: Circumstances) -> TaskRecord:
    """Settle an attempt that the shutdown cancelled."""
    if record.requeue_on_interrupt:
        return lifecycle.requeue(record, at=around.at, owner="")
    return lifecycle.interrupt(record, at=around.at, owner=around.owner, reason=SHUT_DOWN)


def _failed(record: TaskRecord, failure: Failure, error: BaseException | None, around: Circumstances) -> TaskRecord:
    pause = None if around.cancel_asked else _pause(record, error, around)
    if pause is None:
        return lifecycle.fail(record, failure, at=around.at)
    return lifecycle.retry(record, failure, at=around.at, run_at=around.at + pause)


def _pause(record: TaskRecord, error: BaseException | None, around: Circumstances) -> float | None:
    """Return the seconds until the next attempt; None if there is none."""
    if record.attempt >= record.max_attempts or isinstance(error, GiveUp):
        return None
    if isinstance(error, Retry):
        if error.after is not None:
            return error.after
    elif error is not None and not around.policy.allows(error):
        return None
    # Attempts that a crash cut off, or that ended as the task wished, do not lengthen the backoff.
    failed = sum(1 for attempt in record.attempts if attempt.error_type is not None)
    return around.policy.pause_before(failed + 1, chance=around.chance)
