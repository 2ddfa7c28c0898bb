"""What holds for every schedule, at every time."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from fastapi_taskflow.task.cron import CronTimes
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.schedule import GRACE, MADE_UP, Every, Schedule, newest

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/St_Johns")
instants = st.floats(1.5e9, 2.2e9)


async def job() -> None:
    """Do nothing."""


DEFINITION = TaskDefinition(name="job", func=job, is_async=True, code_name="tests.job")


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """One field of a crontab line."""
    number = st.integers(low, high).map(str)
    return st.one_of(
        st.just("*"),
        number,
        st.integers(2, high).map(lambda step: f"*/{step}"),
        st.lists(number, min_size=2, max_size=4, unique=True).map(",".join),
        st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda two: f"{min(two)}-{max(two)}"),
    )


def wildcards(number: int) -> st.SearchStrategy[str]:
    """So many fields that leave all open, most often."""
    return st.sampled_from([" ".join("*" * number)] * 3)


cron_times = st.builds(
    lambda minute, hour, days, zone: CronTimes(f"{minute} {hour} {days}", ZoneInfo(zone)),
    field(0, 59),
    field(0, 23),
    st.one_of(wildcards(3), st.tuples(field(1, 28), field(1, 12), field(0, 6)).map(" ".join)),
    st.sampled_from(ZONES),
)
every_times = st.builds(Every, st.one_of(st.integers(1, 200_000).map(float), st.floats(0.1, 1_000)))
times = st.one_of(cron_times, every_times)


@given(times, instants)
def test_slots_follow_each_other(found: Any, after: float) -> None:
    """Each is later than the one before; of a crontab line in another minute, on the minute."""
    slots = list(islice(Schedule("job", DEFINITION, found).slots_after(after), 8))
    assert all(one < other for one, other in pairwise([after, *slots]))
    if isinstance(found, CronTimes):
        assert all(slot % 60 == 0 for slot in slots)


@given(times, instants, st.floats(0.0, 1.0))
def test_all_instances_have_the_same_slots(found: Any, after: float, part: float) -> None:
    """Whoever looks at another time before the next slot finds that one, and nobody finds one between."""
    slot = found.after(after)
    assert slot is not None
    begin = after + (slot - after) * part
    assert found.after(begin if begin < slot else after) == slot
    assert found.after(slot) > slot


@given(times, instants, st.floats(0.0, 7 * 86_400), st.integers(1, 20))
def test_the_newest_are_the_last_of_all(found: Any, last: float, seconds: float, limit: int) -> None:
    """Looked for from the end, they are those that counting from the beginning finds."""
    now = last + (min(seconds, 3_600.0) if isinstance(found, Every) and found.seconds < 60 else seconds)
    slots = []
    slot = found.after(last)
    while slot is not None and slot <= now:
        slots.append(slot)
        slot = found.after(slot)
    assert newest(found, last, now, limit) == tuple(slots[-limit:])


@given(times, instants, st.floats(0.0, 86_400), st.sampled_from(["run_once", "skip", "run_all"]))
def test_what_is_due_is_bounded(found: Any, last: float, seconds: float, misfire: Any) -> None:
    """Never more than so many, each once, none before its time; and with ``run_once`` always the newest."""
    schedule, now = Schedule("job", DEFINITION, found, misfire=misfire), last + seconds
    due = schedule.due(last, now)
    assert len(due) <= MADE_UP
    assert list(due) == sorted(set(due))
    assert all(last < slot <= now for slot in due)
    if misfire == "skip":
        assert all(now - slot <= GRACE for slot in due)
    else:
        assert (due[-1] if due else None) == schedule.newest(last, now)


@given(times, instants, st.floats(0.0, 86_400))
def test_jitter_is_bounded_and_the_same_for_all(found: Any, after: float, jitter: float) -> None:
    """It puts a slot off by no more than was asked for, by the same amount everywhere."""
    one, other = (Schedule("job", DEFINITION, found, jitter=jitter) for _ in range(2))
    slot = found.after(after)
    assert slot is not None
    assert slot <= one.run_at(slot) <= slot + jitter
    assert one.run_at(slot) == other.run_at(slot)
