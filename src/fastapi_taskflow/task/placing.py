"""Where and when one task is to run: what ``add_task`` takes beside the function's own arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.settings import require_number
from fastapi_taskflow.task.arguments import checked_key, checked_priority, checked_queue, checked_tags

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Placing:
    """The options of one call, checked. None means as the task's definition says.

    Attributes:
        tags: Labels to find it by.
        idempotency_key: At most one task of its function with this key exists.
        queue: The queue's name.
        priority: Higher runs first within the queue.
        run_at: Not before; seconds since the Unix epoch.
        expires_at: Not at or after; seconds since the Unix epoch.
        unique_for: Seconds of the windows in which it exists once.
        eager: Whether it starts before the response, as soon as it is stored.
        given: The names of the options that were given.
        parent_id: The task that this one follows or belongs to.
        group_id: The group that it is a member of.
        schedule: The schedule that adds it.
        follow: What is to be added when it ends, as stored text.
        task_id: Its id, where something else than its function and key decides it.
    """

    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    queue: str | None = None
    priority: int | None = None
    run_at: float | None = None
    expires_at: float | None = None
    unique_for: float | None = None
    eager: bool = False
    given: frozenset[str] = frozenset()
    parent_id: str | None = None
    group_id: str | None = None
    schedule: str | None = None
    follow: str | None = None
    task_id: str | None = None


AS_DEFINED: Final = Placing()
"""No option at all."""


def placed(
    *,
    tags: Sequence[str] = (),
    idempotency_key: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    delay: float | timedelta | None = None,
    run_at: datetime | None = None,
    expires: float | timedelta | None = None,
    deadline: datetime | None = None,
    unique_for: float | timedelta | None = None,
    eager: bool = False,
) -> Placing:
    """Return the options of one call, as ``add_task`` documents them.

    Raises:
        ConfigurationError: If one is wrong, or two contradict each other.
    """
    plain = not tags and not eager and idempotency_key is None and queue is None and priority is None
    if plain and delay is None and run_at is None and expires is None and deadline is None and unique_for is None:
        # Most calls: each request waits for this.
        return AS_DEFINED
    options: dict[str, Any] = {
        "tags": tags or None, "idempotency_key": idempotency_key, "queue": queue, "priority": priority, "delay": delay,
        "run_at": run_at, "expires": expires, "deadline": deadline, "unique_for": unique_for, "eager": eager or None,
    }  # fmt: skip
    given = frozenset(name for name, value in options.items() if value is not None)
    for one, other in (("delay", "run_at"), ("expires", "deadline"), ("eager", "delay"), ("eager", "run_at")):
        if one in given and other in given:
            msg = f"give {one} or {other}, not both"
            raise ConfigurationError(msg)
    now = clock.now()
    return Placing(
        tags=checked_tags(tags) if tags else (),
        idempotency_key=None if idempotency_key is None else checked_key(idempotency_key),
        queue=None if queue is None else checked_queue(queue),
        priority=None if priority is None else checked_priority(priority),
        run_at=_instant("delay", delay, "run_at", run_at, now=now),
        expires_at=_instant("expires", expires, "deadline", deadline, now=now),
        unique_for=None if unique_for is None else _above_zero("unique_for", seconds_of("unique_for", unique_for)),
        eager=eager,
        given=given,
    )


def seconds_of(name: str, value: object) -> float:
    """Return a span of time in seconds.

    Raises:
        ConfigurationError: If it is neither a number nor a ``timedelta``, is negative or without end.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    require_number(name, value)
    if not 0 <= value < math.inf:  # type: ignore[operator]
        msg = f"{name} must be 0 or more seconds, or a timedelta, not {value!r}"
        raise ConfigurationError(msg)
    return float(value)  # type: ignore[arg-type]


def instant_of(name: str, value: object) -> float:
    """Return a point in time in seconds since the Unix epoch.

    Raises:
        ConfigurationError: If it is not a ``datetime`` with a time zone.
    """
    if not isinstance(value, datetime) or value.tzinfo is None:
        msg = f"{name} must be a datetime with a time zone, such as datetime.now(UTC), not {value!r}"
        raise ConfigurationError(msg)
    return value.timestamp()


def _instant(span_name: str, span: object, name: str, instant: object, *, now: float) -> float | None:
    if span is not None:
        return now + seconds_of(span_name, span)
    return None if instant is None else instant_of(name, instant)


def _above_zero(name: str, seconds: float) -> float:
    if not seconds > 0:
        msg = f"{name} must be above zero, not {seconds!r}"
        raise ConfigurationError(msg)
    return seconds
