"""Which slots a schedule has, and which of them are run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fastapi_taskflow import ConfigurationError, TaskManager
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.schedule import MADE_UP, Every, Schedule


async def job() -> None:
    """Do nothing."""


async def other_job() -> None:
    """Do nothing either."""


DEFINITION = TaskDefinition(name="job", func=job, is_async=True, code_name="tests.job")


def schedule(every: float = 60.0, **facts: Any) -> Schedule:
    """A schedule of `job`."""
    return Schedule("job", DEFINITION, Every(every), **facts)


@pytest.mark.parametrize(
    ("misfire", "last", "now", "due"),
    [
        ("run_once", 600, 659, ()),
        ("run_once", 600, 660, (660,)),
        ("run_once", 600, 680, (660,)),
        ("run_once", 600, 910, (900,)),
        ("skip", 600, 665, (660,)),
        ("skip", 600, 666, ()),
        ("skip", 600, 902, (900,)),
        ("run_all", 600, 910, (660, 720, 780, 840, 900)),
        ("run_all", 600, 659, ()),
    ],
)
def test_what_becomes_of_late_slots(misfire: Any, last: float, now: float, due: tuple[float, ...]) -> None:
    """One that is late by up to five seconds counts as in time, whatever the policy."""
    assert schedule(misfire=misfire).due(last, now) == due


def test_slots_that_are_in_time_make_up_for_those_that_are_not() -> None:
    """With ``run_once`` an outage of an hour does not add one more to what comes in time."""
    assert schedule(1.0).due(0.0, 3_600.5) == (3_596.0, 3_597.0, 3_598.0, 3_599.0, 3_600.0)


def test_run_all_is_bounded() -> None:
    """After a year without anybody the newest hundred are made up for, without looking at all of them."""
    now = 1_800_000_000.0
    found = schedule(0.1, misfire="run_all").due(now - 365 * 86_400, now)
    assert len(found) == MADE_UP
    assert found[-1] == now


def test_the_times_of_every_are_the_same_for_all() -> None:
    """Multiples since the epoch, whenever one begins to look; also those that floats cannot hold."""
    assert Every(0.1).after(1_000_000_000.05) == 1_000_000_000.1
    assert Every(7.0).after(20.0) == 21.0
    assert Every(7.0).after(21.0) == 28.0
    assert str(Every(7.0)) == "every 7 s"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "one of them"),
        ({"every": 60, "cron": "* * * * *"}, "one of them"),
        ({"every": 0}, "every must be 0.1 or more seconds"),
        ({"every": -1}, "every must be"),
        ({"every": float("inf")}, "every must be"),
        ({"every": float("nan")}, "every must be"),
        ({"every": "60"}, "every must be a number"),
        ({"every": True}, "every must be a number"),
        ({"every": timedelta(0)}, "every must be"),
        ({"every": 60, "timezone": "UTC"}, "timezone= goes with cron="),
        ({"cron": 5}, "five fields such as"),
        ({"cron": "* * * * *", "timezone": "Mars/Base"}, "no time zone 'Mars/Base'"),
        ({"every": 60, "jitter": -1}, "jitter must be 0 or more"),
        ({"every": 60, "overlap": "wait"}, "overlap must be one of skip, queue, allow"),
        ({"every": 60, "misfire": []}, "misfire must be one of run_once, skip, run_all"),
        ({"every": 60, "retries": -1}, "retries must be"),
        ({"every": 60, "tags": "nightly"}, "tags must be a list"),
        ({"every": 60, "name": "two words"}, "a schedule's name must be"),
        ({"every": 60, "name": "@mine"}, "a schedule's name must be"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], reason: str) -> None:
    """Where they are written, with what is allowed."""
    with pytest.raises(ConfigurationError, match=reason):
        TaskManager().schedule(**options)(job)


def test_a_function_that_needs_arguments_is_refused() -> None:
    """The scheduler has none to give; what has a default, or is optional anyway, is fine."""
    manager = TaskManager()

    def needs(day: str, *rest: str, hours: int, zone: str = "UTC", **more: str) -> None: ...

    with pytest.raises(ConfigurationError, match="needs day, hours: give defaults"):
        manager.schedule(every=60)(needs)
    manager.schedule(every=60)(lambda_free := optional)
    assert lambda_free is optional


def optional(day: str = "today", *rest: str, **more: str) -> None:
    """Take what is given."""


def test_a_second_schedule_of_a_function_needs_a_name_of_its_own() -> None:
    """One function may have two schedules; with one name the second would take the place of the first unseen."""
    manager = TaskManager()
    manager.schedule(every=60)(job)
    with pytest.raises(ConfigurationError, match="has a schedule already"):
        manager.schedule(every=90)(job)
    manager.schedule(every=90, name="job-on-sundays")(job)
    with pytest.raises(ConfigurationError, match="two functions are registered"):
        manager.schedule(every=90, name="job")(other_job)


async def test_a_schedule_cannot_be_added_while_the_manager_runs() -> None:
    """It would never be looked at."""
    manager = TaskManager()
    await manager.startup()
    try:
        with pytest.raises(ConfigurationError, match="comes too late"):
            manager.schedule(every=60)(job)
    finally:
        await manager.shutdown()
