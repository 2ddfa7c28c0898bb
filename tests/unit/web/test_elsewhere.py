"""What a page is told of tasks that other instances hold."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from fastapi_taskflow.errors import StoreUnavailableError
from fastapi_taskflow.store import Change, Instance
from fastapi_taskflow.stores.memory import MemoryStore
from fastapi_taskflow.task.record import TaskRecord, TaskStatus
from fastapi_taskflow.web import elsewhere
from fastapi_taskflow.web.elsewhere import LIMIT, LOOKUPS, Elsewhere
from fastapi_taskflow.web.stream import PER_CLIENT, ChangeFeed, Subscription
from tests.unit.web import samples

if TYPE_CHECKING:
    from collections.abc import Sequence


class SharedStore(MemoryStore):
    """Stands for a database that another instance works on too; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.error: Exception | None = None

    async def instances(self) -> Sequence[Instance]:
        if self.error is not None:
            raise self.error
        return await super().instances()

    async def changes(self, since: float, *, limit: int) -> Sequence[TaskRecord]:
        self.asked += 1
        return await super().changes(since, limit=limit)

    async def keep(self, *records: TaskRecord) -> None:
        """Write what another instance would have written."""
        await self.write([Change(record, await self.get(record.task_id)) for record in records])


class Watched:
    """A page, and what it is told."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.feed = ChangeFeed()
        self.elsewhere = Elsewhere(store, self.feed, me=lambda: "me")
        self.page: Subscription | None = None

    def open(self) -> None:
        self.page = self.feed.subscribe()

    async def told(self) -> list[tuple[str, str]]:
        """Look once; return ids and statuses of what the page is told."""
        await self.elsewhere.look()
        assert self.page is not None
        return [(change.record.task_id, change.record.status.value) for change in self.page.take()]


@pytest.fixture
async def store() -> SharedStore:
    """This instance and another one live."""
    store = SharedStore()
    for name in ("me", "other"):
        await store.beat(Instance(name, "here", 1, 1, 0.0, 0.0))
    return store


@pytest.fixture
async def watched(store: SharedStore) -> Watched:
    """A page that was just opened."""
    watched = Watched(store)
    watched.open()
    return watched


def fresh(status: TaskStatus = TaskStatus.PENDING, owner: str = "other", **facts: Any) -> TaskRecord:
    """Return a task that was just added."""
    now = time.time()
    facts = {"created_at": now, "ready_at": now, **facts}
    if status is not TaskStatus.PENDING:
        facts = {"start_time": now, **facts}
    if status not in {TaskStatus.PENDING, TaskStatus.RUNNING}:
        facts = {"end_time": now, **facts}
    return samples.record(status, owner=owner, **facts)


async def test_each_change_of_another_instances_task_is_told_once(watched: Watched) -> None:
    """Added, started, a line written, ended; and between them nothing."""
    task = fresh()
    await watched.store.keep(task)
    assert await watched.told() == [(task.task_id, "pending")]
    assert await watched.told() == []
    running = task.evolve(status=TaskStatus.RUNNING, start_time=time.time())
    await watched.store.keep(running)
    assert await watched.told() == [(task.task_id, "running")]
    await watched.store.keep(running.evolve())
    assert await watched.told() == [(task.task_id, "running")]
    await watched.store.keep(running.evolve().evolve(status=TaskStatus.SUCCESS, end_time=time.time()))
    assert await watched.told() == [(task.task_id, "success")]
    assert await watched.told() == []


async def test_a_task_that_came_and_went_between_two_looks_is_told(watched: Watched) -> None:
    """It is found among those that ended."""
    assert await watched.told() == []
    task = fresh(TaskStatus.FAILED)
    await watched.store.keep(task)
    assert await watched.told() == [(task.task_id, "failed")]
    assert await watched.told() == []


async def test_own_tasks_and_those_without_an_owner_are_left_to_their_events(watched: Watched) -> None:
    """This instance tells of its own by itself; the other one takes up what it has just put into a transaction."""
    await watched.store.keep(fresh(owner="me"), fresh(TaskStatus.SUCCESS, owner="me"), fresh(owner=""))
    assert await watched.told() == []


async def test_what_was_interrupted_is_looked_up(watched: Watched) -> None:
    """It is in no list of changes, but it lives no more."""
    task = fresh(TaskStatus.RUNNING, created_at=time.time() - 60)
    await watched.store.keep(task)
    assert await watched.told() == [(task.task_id, "running")]
    await watched.store.keep(task.evolve(status=TaskStatus.INTERRUPTED, end_time=time.time() - 3600))
    assert await watched.told() == [(task.task_id, "interrupted")]
    assert await watched.told() == []


async def test_what_was_taken_over_here_is_left_to_its_events(watched: Watched) -> None:
    """Its new owner is this instance."""
    task = fresh(TaskStatus.RUNNING)
    await watched.store.keep(task)
    await watched.told()
    await watched.store.claim("me", {"other": (await watched.store.instances())[1].heartbeat_at}, limit=10)
    assert await watched.told() == []


async def test_many_that_vanish_at_once_make_the_pages_load_anew(watched: Watched) -> None:
    """Looking each of them up would take too long."""
    tasks = [fresh(TaskStatus.RUNNING, created_at=time.time() - 60) for _ in range(LOOKUPS + 1)]
    await watched.store.keep(*tasks)
    assert len(await watched.told()) == LOOKUPS + 1
    ended = time.time() - 3600
    await watched.store.keep(*(task.evolve(status=TaskStatus.INTERRUPTED, end_time=ended) for task in tasks))
    await watched.told()
    assert watched.page is not None
    assert watched.page.lagged


async def test_the_first_look_leaves_out_what_the_page_has(store: SharedStore) -> None:
    """What has lived or ended for long was there when the page was loaded."""
    old, new = time.time() - 60, time.time()
    long_running = fresh(TaskStatus.RUNNING, created_at=old, start_time=old)
    just_begun = fresh(TaskStatus.RUNNING, created_at=old, start_time=new)
    ended = fresh(TaskStatus.SUCCESS, created_at=old, start_time=old, end_time=old)
    await store.keep(long_running, just_begun, ended)
    watched = Watched(store)
    watched.open()
    assert await watched.told() == [(just_begun.task_id, "running")]
    await store.keep(long_running.evolve())
    assert await watched.told() == [(long_running.task_id, "running")]


async def test_without_a_page_nothing_is_asked_or_kept(watched: Watched) -> None:
    """The store is left alone when nobody looks."""
    await watched.store.keep(fresh())
    await watched.told()
    assert watched.page is not None
    watched.feed.unsubscribe(watched.page)
    asked = watched.store.asked
    await watched.elsewhere.look()
    assert watched.store.asked == asked
    assert not watched.elsewhere._told


async def test_alone_nothing_is_asked(watched: Watched) -> None:
    """One process is the common case; the end of the last of the others' tasks is still told."""
    task = fresh(TaskStatus.RUNNING)
    await watched.store.keep(task)
    await watched.told()
    await watched.store.forget("other")
    await watched.store.keep(task.evolve(status=TaskStatus.SUCCESS, end_time=time.time()))
    assert await watched.told() == [(task.task_id, "success")]
    asked = watched.store.asked
    assert await watched.told() == []
    assert watched.store.asked == asked


async def test_a_busy_instance_cannot_fill_the_memory(watched: Watched) -> None:
    """A page that cannot keep up loads anew, and only what the last look found is remembered."""
    for _ in range(3):
        await watched.store.keep(*(fresh(TaskStatus.SUCCESS) for _ in range(LIMIT)))
        await watched.told()
    assert watched.page is not None
    assert watched.page.lagged
    assert len(watched.page.waiting) <= PER_CLIENT
    assert len(watched.elsewhere._told) <= 3 * LIMIT


async def test_an_outage_is_a_pause(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once; afterwards the pages load anew and the stream goes on."""
    monkeypatch.setattr(elsewhere, "EVERY", 0.0)
    page = watched.page
    assert page is not None
    watched.store.error = StoreUnavailableError("the server is away")
    with caplog.at_level(logging.WARNING):
        watched.elsewhere.start()
        for _ in range(20):
            await asyncio.sleep(0)
        watched.store.error = None
        async with asyncio.timeout(10):
            while not page.lagged:
                await page.wait(10)
            page.lagged = False
            task = fresh()
            await watched.store.keep(task)
            while not page.waiting:
                await page.wait(10)
    watched.elsewhere.stop()
    assert [change.record.task_id for change in page.take()] == [task.task_id]
    assert [record.message for record in caplog.records] == [
        "changes of other instances are not streamed until the store answers: the server is away"
    ]


async def test_it_ends_with_the_app(watched: Watched) -> None:
    """Stopped in the middle of a look, started twice, stopped twice: nothing goes on."""
    before = asyncio.all_tasks()
    watched.elsewhere.start()
    watched.elsewhere.start()
    await asyncio.sleep(0)
    watched.elsewhere.stop()
    watched.elsewhere.stop()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
