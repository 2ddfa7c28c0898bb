"""Functions that run by the clock: when, and what becomes of a time that nobody was there for.

A time of a schedule is a slot. It is the same number in every process, and the id of its task is made from it. So the
store has one task for each slot, whoever adds it and however often.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypedDict, get_args

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError, ScheduleNotFoundError
from fastapi_taskflow.settings import require_number
from fastapi_taskflow.task.cron import CronTimes, zone_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.record import TaskRecord

Overlap = Literal["skip", "queue", "allow"]
Misfire = Literal["run_once", "skip", "run_all"]

GRACE: Final = 5.0
"""Seconds by which a slot may be late without having been missed."""

MADE_UP: Final = 100
"""Missed slots that are made up for at most."""

SHORTEST: Final = 0.1
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}")


class Times(Protocol):
    """When a schedule comes."""

    def after(self, instant: float) -> float | None:
        """Return the first time after ``instant``, both in seconds since the Unix epoch; None if none ever comes."""


@dataclass(frozen=True, slots=True)
class Every:
    """Multiples of a number of seconds since the Unix epoch.

    Attributes:
        seconds: The number.
    """

    seconds: float

    def __str__(self) -> str:
        """Return what it says, to tell it from another one."""
        return f"every {self.seconds:g} s"

    def after(self, instant: float) -> float:
        """Return the first multiple after ``instant``."""
        number = math.floor(instant / self.seconds)
        while (found := round(number * self.seconds, 6)) <= instant:
            number += 1
        return found


@dataclass(frozen=True, slots=True)
class Schedule:
    """A function that runs by the clock.

    Attributes:
        name: Unique in a manager; the name of its task.
        definition: What runs.
        times: When.
        jitter: Seconds by which a task is put off at most, each by its own.
        overlap: What becomes of a slot whose predecessor has not ended.
        misfire: What becomes of slots that nobody was there for.
        run_on_startup: Whether it also runs when the application starts.
        tags: Labels of its tasks.
    """

    name: str
    definition: TaskDefinition
    times: Times
    jitter: float = 0.0
    overlap: Overlap = "skip"
    misfire: Misfire = "run_once"
    run_on_startup: bool = False
    tags: tuple[str, ...] = ()

    def slots_after(self, instant: float) -> Iterator[float]:
        """Give all slots after ``instant``, in order."""
        slot = self.times.after(instant)
        while slot is not None:
            yield slot
            slot = self.times.after(slot)

    def newest(self, last: float, now: float) -> float | None:
        """Return the newest slot after ``last`` and not after ``now``, or None."""
        return next(iter(newest(self.times, last, now, 1)), None)

    def due(self, last: float, now: float) -> tuple[float, ...]:
        """Return the slots after ``last`` that are to run now, in order, as ``misfire`` says."""
        slots = newest(self.times, last, now)
        in_time = tuple(slot for slot in slots if now - slot <= GRACE)
        if self.misfire == "run_all":
            return slots
        if self.misfire == "run_once" and not in_time:
            return slots[-1:]
        return in_time

    def key(self, slot: float) -> str:
        """Return the idempotency key of a slot's task."""
        return f"{self.name}@{clock.to_iso(slot)}"

    def run_at(self, slot: float) -> float:
        """Return when the task of a slot is to run: the same in every process."""
        if not self.jitter:
            return slot
        chance = int.from_bytes(hashlib.sha256(self.key(slot).encode()).digest()[:8]) / 2**64
        return slot + self.jitter * chance


def newest(times: Times, last: float, now: float, limit: int = MADE_UP) -> tuple[float, ...]:
    """Return the newest ``limit`` times after ``last`` and not after ``now``, in order.

    However many there are, a few times as many as are returned are looked at.
    """
    span = 1.0
    while True:
        start = max(last, now - span)
        found = []
        slot = times.after(start)
        while slot is not None and slot <= now:
            found.append(slot)
            slot = times.after(slot)
        if start == last or len(found) >= limit:
            return tuple(found[-limit:])
        span *= 4


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule as it is now.

    Attributes:
        schedule: What the code says.
        paused: Whether its slots pass by.
        next_runs: The next slots, in seconds since the Unix epoch.
        last_slot: The last one that was dealt with, or None.
        last_task: Its newest task, or None.
    """

    schedule: Schedule
    paused: bool
    next_runs: tuple[float, ...]
    last_slot: float | None
    last_task: TaskRecord | None


class Schedules:
    """The schedules of one manager, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Schedule] = {}

    def __iter__(self) -> Iterator[Schedule]:
        """Iterate over all of them, in the order in which they were declared."""
        return iter(tuple(self._by_name.values()))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_name)

    def get(self, name: str) -> Schedule | None:
        """Return the schedule of this name, or None."""
        return self._by_name.get(name)

    def named(self, name: str) -> Schedule:
        """Return the schedule of this name.

        Raises:
            ScheduleNotFoundError: If there is none.
        """
        found = self._by_name.get(name)
        if found is None:
            raise ScheduleNotFoundError(name)
        return found

    def refuse_second(self, name: str, func: Callable[..., Any]) -> None:
        """Refuse a second schedule of one name for one function; a module that is loaded again may declare anew.

        Raises:
            ConfigurationError: If there is one.
        """
        known = self._by_name.get(name)
        if known is not None and known.definition.func is func:
            msg = f"{name} has a schedule already; give the second one a name of its own with schedule(name=…)"
            raise ConfigurationError(msg)

    def add(self, schedule: Schedule) -> None:
        """Add a schedule."""
        self._by_name[schedule.name] = schedule


class ScheduleOptions(TypedDict):
    """Checked options of a schedule; see ``TaskManager.schedule`` and `Schedule`."""

    times: Times
    jitter: float
    overlap: Overlap
    misfire: Misfire
    run_on_startup: bool


def checked_schedule(
    *,
    every: object,
    cron: object,
    timezone: object,
    jitter: object,
    overlap: Any,
    misfire: Any,
    run_on_startup: bool,
) -> ScheduleOptions:
    """Return the options.

    Raises:
        ConfigurationError: If one is wrong, or they contradict each other.
    """
    if (every is None) == (cron is None):
        msg = "a schedule needs every= (seconds, or a timedelta) or cron= (five fields), one of them"
        raise ConfigurationError(msg)
    for name, value, allowed in (("overlap", overlap, get_args(Overlap)), ("misfire", misfire, get_args(Misfire))):
        if value not in allowed:
            msg = f"{name} must be one of {', '.join(allowed)}, not {value!r}"
            raise ConfigurationError(msg)
    return ScheduleOptions(
        times=_every(every, timezone) if cron is None else _cron(cron, timezone),
        jitter=_seconds("jitter", jitter, at_least=0.0),
        overlap=overlap,
        misfire=misfire,
        run_on_startup=run_on_startup,
    )


def _every(every: object, timezone: object) -> Every:
    if timezone is not None:
        msg = "timezone= goes with cron=: every= counts seconds from the Unix epoch, which are the same everywhere"
        raise ConfigurationError(msg)
    return Every(_seconds("every", every, at_least=SHORTEST))


def _cron(cron: object, timezone: object) -> CronTimes:
    if not isinstance(cron, str):
        msg = f"cron must be five fields such as '0 3 * * *', not {cron!r}"
        raise ConfigurationError(msg)
    return CronTimes(cron, zone_of("UTC" if timezone is None else timezone))


def _seconds(name: str, value: object, *, at_least: float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    require_number(name, seconds)
    if not at_least <= seconds < math.inf:  # type: ignore[operator]
        msg = f"{name} must be {at_least:g} or more seconds, or a timedelta, not {value!r}"
        raise ConfigurationError(msg)
    return float(seconds)  # type: ignore[arg-type]


def refuse_unfit(name: str, func: Callable[..., Any], filled: frozenset[str]) -> None:
    """Refuse a name that is none for a schedule, and a function that cannot be called without arguments.

    Args:
        name: The task's name.
        func: The function.
        filled: Parameters that are filled for each attempt.

    Raises:
        ConfigurationError: If one of them is so.
    """
    if not NAME.fullmatch(name):
        msg = (
            f"a schedule's name must be 1 to 128 letters, digits, '.', '_', '-' or ':', beginning with a letter, digit "
            f"or '_', not {name!r}; give it one with schedule(name=…)"
        )
        raise ConfigurationError(msg)
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        parameter.name
        for parameter in inspect.signature(func).parameters.values()
        if parameter.default is parameter.empty and parameter.kind not in optional and parameter.name not in filled
    ]
    if needed:
        msg = f"{name} is called without arguments by its schedule, and needs {', '.join(needed)}: give defaults"
        raise ConfigurationError(msg)
