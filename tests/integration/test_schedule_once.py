"""Tasks that run once at a certain time: alone, replaced, cancelled and listed, in one instance and in several."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fastapi_taskflow import ConfigurationError, NotStartedError, ScheduledOnce, StoreUnavailableError, TaskManager
from fastapi_taskflow.services import one_offs
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.testing import FakeClock
from tests.integration.conftest import eventually
from tests.integration.test_schedules import START, Shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

ran: list[tuple[str, int]] = []


async def remind(who: str, number: int = 1) -> None:
    """Note that it ran."""
    ran.append((who, number))


@pytest.fixture(autouse=True)
def none_ran() -> None:
    """Each test begins without a run."""
    ran.clear()


@pytest.fixture
def fake() -> Iterator[FakeClock]:
    """A clock that stands."""
    with FakeClock(start=START) as made:
        yield made


@pytest.fixture(params=["memory", "sqlite"])
async def manager(request: pytest.FixtureRequest, path: Path, fake: FakeClock) -> AsyncIterator[TaskManager]:
    """A started manager without any schedule."""
    made = TaskManager(snapshot_db=path if request.param == "sqlite" else None)
    fake.watch(made)
    await made.startup()
    yield made
    await made.shutdown()


@contextlib.asynccontextmanager
async def two_on(url: str) -> AsyncIterator[tuple[TaskManager, TaskManager]]:
    """Two started managers on one database."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            manager = TaskManager(snapshot_backend=url, shutdown_timeout=1)
            await manager.startup()
            stack.push_async_callback(manager.shutdown)
            made.append(manager)
        yield made[0], made[1]


async def statuses(manager: TaskManager) -> dict[str, str]:
    """What the store has, by id."""
    page = await manager.journal.list(TaskQuery(limit=500))
    return {record.task_id: record.status.value for record in page.records}


async def test_it_runs_at_its_time_without_any_schedule(manager: TaskManager, fake: FakeClock) -> None:
    """By a time, by a delay, or at once if the time is past; without a key each call is a task of its own."""
    await manager.schedule_once(remind, "at", run_at=START + timedelta(hours=1), tags=["t"], queue="mail", priority=5)
    later = await manager.schedule_once(remind, "in", number=2, delay=timedelta(hours=2))
    assert await manager.schedule_once(remind, "in", number=2, delay=7200) != later
    await manager.schedule_once(remind, "past", run_at=START - timedelta(days=1))
    await fake.advance(0)
    assert ran == [("past", 1)]
    first, *others = await manager.list_scheduled()
    assert (first.func_name, first.run_key, first.run_at) == ("remind", None, START + timedelta(hours=1))
    assert (first.tags, first.queue, first.priority) == (("t",), "mail", 5)
    assert [each.run_at for each in others] == [START + timedelta(hours=2)] * 2
    await fake.advance(3599)
    assert ran == [("past", 1)]
    await fake.advance(3601)
    assert ran == [("past", 1), ("at", 1), ("in", 2), ("in", 2)]
    assert await manager.list_scheduled() == []


async def test_a_key_is_there_once(manager: TaskManager, fake: FakeClock) -> None:
    """While it waits and after it ran; one that was cancelled leaves the key free."""
    first = await manager.schedule_once(remind, "a", delay=60, run_key="k")
    assert await manager.schedule_once(remind, "b", delay=30, run_key="k") == first
    together = await asyncio.gather(*(manager.schedule_once(remind, str(n), delay=5, run_key="x") for n in range(5)))
    assert len(set(together)) == 1
    await fake.advance(60)
    assert ran == [("0", 1), ("a", 1)]
    assert await manager.schedule_once(remind, "c", delay=60, run_key="k") == first
    second = await manager.schedule_once(remind, "d", delay=60, run_key="l")
    assert await manager.cancel_scheduled("l") is True
    assert await manager.cancel_scheduled("l") is False
    again = await manager.schedule_once(remind, "e", delay=60, run_key="l")
    assert again != second
    await fake.advance(60)
    assert ran == [("0", 1), ("a", 1), ("e", 1)]


async def test_replacing_changes_time_and_arguments(manager: TaskManager, fake: FakeClock) -> None:
    """Of one that waits, in one step; one that has run is followed by a new one."""
    old = await manager.schedule_once(remind, "old", delay=60, run_key="k")
    new = await manager.schedule_once(remind, "new", number=2, delay=30, run_key="k", replace=True)
    assert await statuses(manager) == {old: "cancelled", new: "pending"}
    (waiting,) = await manager.list_scheduled()
    assert (waiting.task_id, waiting.run_key) == (new, "k")
    record = await manager.wait(old)
    assert record.error == f"replaced by task {new}"
    await fake.advance(90)
    assert ran == [("new", 2)]
    third = await manager.schedule_once(remind, "third", delay=1, run_key="k", replace=True)
    assert third not in {old, new}
    await fake.advance(1)
    assert ran == [("new", 2), ("third", 1)]


async def test_a_task_may_schedule_itself_again(manager: TaskManager, fake: FakeClock) -> None:
    """By its own key, while it runs."""
    times: list[str] = []

    async def poll() -> None:
        times.append(f"{fake.time:%M:%S}")
        if len(times) < 3:
            await manager.schedule_once(poll, delay=60, run_key="poll", replace=True)

    await manager.schedule_once(poll, delay=60, run_key="poll")
    await fake.advance(600)
    assert times == ["01:30", "02:30", "03:30"]


async def test_cancelling_takes_keys_and_ids_of_what_waits_only(manager: TaskManager, fake: FakeClock) -> None:
    """Not of ordinary tasks, nor of what has run."""
    waits = await manager.schedule_once(remind, "a", delay=60)
    other = await manager.enqueue(remind, "b", delay=60)
    runs = await manager.schedule_once(remind, "c", delay=0)
    await fake.advance(0)
    assert [await manager.cancel_scheduled(key) for key in (waits, other, runs, "nobody")] == [
        True,
        False,
        False,
        False,
    ]
    await fake.advance(60)
    assert ran == [("c", 1), ("b", 1)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "needs a time"),
        ({"delay": 5, "run_at": START}, "give delay or run_at, not both"),
        ({"delay": -1}, "delay must be 0 or more"),
        ({"run_at": datetime(2026, 1, 1)}, "with a time zone"),
        ({"delay": 5, "replace": True}, "replace=True needs a run_key"),
        ({"delay": 5, "run_key": ""}, "run_key must be"),
        ({"delay": 5, "run_key": "a*"}, "run_key must be"),
        ({"delay": 5, "run_key": "a\0"}, "printable"),
        ({"delay": 5, "run_key": "\ud800"}, "printable"),
        ({"delay": 5, "run_key": 7}, "run_key must be"),
        ({"delay": 5, "queue": "no such name"}, "a queue's name must be"),
    ],
)
async def test_wrong_options_are_refused(manager: TaskManager, options: dict[str, Any], reason: str) -> None:
    """With what is allowed, and nothing is added."""
    with pytest.raises(ConfigurationError, match=reason):
        await manager.schedule_once(remind, "a", **options)
    assert await statuses(manager) == {}


async def test_an_option_with_the_name_of_an_argument_is_refused(manager: TaskManager) -> None:
    """It cannot be told which one is meant."""

    async def copy(replace: bool = False, run_key: str = "") -> None: ...  # noqa: FBT001, FBT002

    with pytest.raises(ConfigurationError, match="run_key= is an option"):
        await manager.schedule_once(copy, delay=5, run_key="k")


async def test_a_manager_that_is_not_started_says_so() -> None:
    """Of all three."""
    manager = TaskManager()
    for call in (
        manager.schedule_once(remind, "a", delay=1),
        manager.cancel_scheduled("k"),
        manager.list_scheduled(),
    ):
        with pytest.raises(NotStartedError):
            await call


async def test_the_api_lists_what_waits(path: Path, fake: FakeClock) -> None:
    """And the ordinary route cancels it."""
    shop = Shop(path, fake)
    async with shop.open() as client:
        task_id = await shop.manager.schedule_once(remind, "a", run_at=START + timedelta(hours=1), run_key="k")
        (waiting,) = (await client.get("/tasks/schedules/once")).json()
        assert waiting == {
            "task_id": task_id, "run_key": "k", "func_name": "remind", "run_at": "2026-03-28T13:00:30.000000Z",
            "created_at": "2026-03-28T12:00:30.000000Z", "tags": [], "queue": "default", "priority": 0,
        }  # fmt: skip
        task = (await client.get(f"/tasks/{task_id}")).json()
        assert (task["source"], task["schedule"], task["idempotency_key"]) == ("scheduled", "@once:k", "k")
        assert (await client.post(f"/tasks/{task_id}/cancel")).json()["task"]["status"] == "cancelled"
        assert (await client.get("/tasks/schedules/once")).json() == []


# -- several instances -----------------------------------------------------------------------------------------------


async def test_a_key_is_there_once_in_all_instances(url: str) -> None:
    """Whoever adds it, at the same moment or later."""
    async with two_on(url) as managers:
        adding = [each.schedule_once(remind, "a", delay=600, run_key="é%_ k") for each in managers for _ in range(5)]
        assert len(set(await asyncio.gather(*adding))) == 1
        for each in managers:
            assert len(await each.list_scheduled()) == 1


async def test_another_instance_replaces_and_cancels(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one added the other takes and ends; the first one forgets it, and runs nothing."""
    monkeypatch.setattr(one_offs, "LOOK_EVERY", 0.05)
    async with two_on(url) as (one, other):
        first = await one.schedule_once(remind, "first", delay=600, run_key="k")
        second = await other.schedule_once(remind, "second", delay=0.2, run_key="k", replace=True)
        assert await statuses(one) == {first: "cancelled", second: "pending"}
        await eventually(lambda: one.journal.get(first), lambda record: record.status == "cancelled")
        assert first not in one.journal.live
        await eventually(lambda: statuses(one), lambda found: found[second] == "success")
        third = await one.schedule_once(remind, "third", delay=600)
        assert await other.cancel_scheduled(third) is True
        await eventually(lambda: one.journal.get(third), lambda record: record.status == "cancelled")
        assert await one.cancel_scheduled(third) is False
    assert ran == [("second", 1)]


async def test_replacing_and_starting_at_once_leaves_one_of_both(url: str) -> None:
    """Whoever is first in the store: the old one has run and a new one waits, or it is cancelled and never runs."""
    async with two_on(url) as (one, other):
        keys = [f"k{number}" for number in range(20)]
        for key in keys:
            await one.schedule_once(remind, key, number=1, delay=0.3, run_key=key)
        await asyncio.sleep(0.15)

        async def replace(key: str, after: float) -> str:
            await asyncio.sleep(after)
            return await other.schedule_once(remind, key, number=2, delay=600, run_key=key, replace=True)

        new = await asyncio.gather(*(replace(key, number * 0.02) for number, key in enumerate(keys)))
        found = await eventually(lambda: statuses(one), lambda found: "running" not in found.values())
        assert [found[task_id] for task_id in new] == ["pending"] * 20
        old = {status for task_id, status in found.items() if task_id not in new}
        assert old <= {"success", "cancelled"}
        assert len(ran) == list(found.values()).count("success")
        assert len(found) == 40


async def test_replacing_at_once_from_everywhere_leaves_one(url: str) -> None:
    """However many replace one key together, one waits in the end and none has run."""
    async with two_on(url) as managers:
        await managers[0].schedule_once(remind, "0", delay=600, run_key="k")
        replacing = [
            each.schedule_once(remind, str(number), delay=600 + number, run_key="k", replace=True)
            for number in range(4)
            for each in managers
        ]
        ids = await asyncio.gather(*replacing)
        found = await statuses(managers[0])
        assert sorted(found.values()) == ["cancelled"] * (len(found) - 1) + ["pending"]
        (waiting,) = await managers[1].list_scheduled()
        assert waiting.task_id in ids


async def test_a_store_that_fails_leaves_the_old_one_or_the_new_one(path: Path) -> None:
    """A replacement that could not be stored in time is done, as a whole, when the store works again."""
    manager = TaskManager(snapshot_db=path, commit_timeout=0.2)
    await manager.startup()
    try:
        old = await manager.schedule_once(remind, "old", delay=600, run_key="k")
        write, works = manager.store.write, asyncio.Event()

        async def failing(changes: Any) -> Any:
            if works.is_set():
                return await write(changes)
            raise StoreUnavailableError("no")

        manager.store.write = failing  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailableError, match="once it works again"):
            await manager.schedule_once(remind, "new", delay=0, run_key="k", replace=True)
        record = await manager.store.get(old)
        assert record is not None
        assert record.status == "pending"
        works.set()
        await eventually(lambda: statuses(manager), lambda found: sorted(found.values()) == ["cancelled", "success"])
    finally:
        await manager.shutdown()
    assert ran == [("new", 1)]


async def test_one_that_was_taken_and_not_ended_is_run_all_the_same(url: str) -> None:
    """If the store fails just then, it is left to whoever recovers what nobody owns."""
    async with two_on(url) as (one, other):
        task_id = await one.schedule_once(remind, "a", delay=3, run_key="k")
        admit = other.journal.admit

        def full(_entries: Any) -> None:
            raise StoreUnavailableError("full")

        other.journal.admit = full  # type: ignore[method-assign,assignment]
        with pytest.raises(StoreUnavailableError, match="full"):
            await other.schedule_once(remind, "b", delay=3, run_key="k", replace=True)
        other.journal.admit = admit  # type: ignore[method-assign]
        await eventually(lambda: statuses(other), lambda found: found == {task_id: "success"})
    assert ran == [("a", 1)]


def test_what_is_listed_is_frozen() -> None:
    """A user cannot change the list's facts by mistake."""
    facts = ScheduledOnce("id", None, "f", datetime.now(UTC), datetime.now(UTC), (), "default", 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        facts.queue = "x"  # type: ignore[misc]
