"""What a task raises to say what is to become of it. These are signals, not errors of this package."""

from __future__ import annotations

from datetime import timedelta

MAX_SECONDS = 10.0 * 365 * 86_400


class Retry(Exception):  # noqa: N818 - it says what to do
    """Raised by a task that wants another attempt, whatever its ``retry_on`` and ``give_up_on`` say.

    It counts as a failed attempt, and without a retry left the task fails. Raised ``from`` another exception, that one
    is shown as the attempt's error.

    Args:
        after: Seconds, or a ``timedelta``, until the next attempt; None leaves it to the task's ``delay`` and
            ``backoff``.

    Raises:
        ValueError: If ``after`` is negative or no span of time.
    """

    def __init__(self, after: float | timedelta | None = None) -> None:
        self.after = None if after is None else seconds_from("after", after)
        super().__init__("asked for another attempt" if after is None else f"asked for another attempt after {after}")

    def __reduce__(self) -> tuple[type[Retry], tuple[float | None]]:
        """Let it be carried from another process."""
        return type(self), (self.after,)


class GiveUp(Exception):  # noqa: N818 - as Retry
    """Raised by a task that is to fail at once, whatever retries it has left.

    Args:
        reason: Why; it is shown as the task's error.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Snooze(Exception):  # noqa: N818 - as Retry
    """Raised by a task that cannot do its work yet. It waits again, and neither failed nor used up a retry.

    Args:
        seconds: How long to wait, or a ``timedelta``.

    Raises:
        ValueError: If it is negative or no span of time.
    """

    def __init__(self, seconds: float | timedelta) -> None:
        self.seconds = seconds_from("seconds", seconds)
        super().__init__(f"snoozed for {seconds}")

    def __reduce__(self) -> tuple[type[Snooze], tuple[float]]:
        """Let it be carried from another process."""
        return type(self), (self.seconds,)


def seconds_from(name: str, span: object) -> float:
    """Return a span of time in seconds.

    Raises:
        ValueError: If it is negative, too long, or no span of time.
    """
    value = span.total_seconds() if isinstance(span, timedelta) else span
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS:
        msg = f"{name} must be 0 or more seconds, or a timedelta, not {span!r}"
        raise ValueError(msg)
    return float(value)


def shown_error(error: BaseException) -> BaseException:
    """Return what is to be shown as the attempt's error: what a `Retry` was raised from, else ``error`` itself."""
    if not isinstance(error, Retry):
        return error
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    return cause or error
