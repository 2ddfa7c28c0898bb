"""The time that a test moves: what waits for it runs in order, to its end, and without waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fastapi_taskflow import ConfigurationError, TaskManager, clock
from fastapi_taskflow.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> TaskManager:
    """A manager with each kind of store."""
    return TaskManager(snapshot_db=tmp_path / "tasks.db" if request.param == "sqlite" else None)


@pytest.fixture
def fake(manager: TaskManager) -> Iterator[FakeClock]:
    """The time, which stands still."""
    with FakeClock(manager, start=START) as made:
        yield made


@pytest.fixture
async def started(manager: TaskManager, fake: FakeClock) -> AsyncIterator[TaskManager]:
    """The manager, up."""
    await manager.startup()
    yield manager
    await manager.shutdown()


async def test_retries_come_at_their_times(started: TaskManager, fake: FakeClock) -> None:
    """A backoff of hours takes no time, and each attempt sees the time that it is."""
    seen: list[datetime] = []

    @started.task(retries=3, delay=3600, backoff=2)
    async def flaky() -> None:
        seen.append(clock.to_datetime(clock.now()))
        if len(seen) < 4:
            raise ConnectionError

    began = time.monotonic()
    task_id = await started.enqueue(flaky)
    await fake.advance(3599)
    assert seen == [START]
    await fake.advance(1)
    assert seen[1:] == [START + timedelta(hours=1)]
    await fake.advance(timedelta(days=1))
    assert seen[2:] == [START + timedelta(hours=3), START + timedelta(hours=7)]
    assert fake.time == START + timedelta(hours=25)
    record = await started.store.get(task_id)
    assert record is not None
    assert (record.status, record.start_time) == ("success", (START + timedelta(hours=7)).timestamp())
    assert time.monotonic() - began < 30


async def test_what_becomes_due_runs_in_order_whenever_it_was_added(started: TaskManager, fake: FakeClock) -> None:
    """One that is added on the way comes before what is due later, and a sync one ends before the time goes on."""
    seen: list[tuple[str, float]] = []

    def sync(name: str) -> None:
        time.sleep(0.01)  # takes some real time, as work does
        seen.append((name, clock.now() - START.timestamp()))

    async def adds() -> None:
        await started.enqueue(sync, "added", delay=5)

    await started.enqueue(sync, "late", delay=60)
    await started.enqueue(sync, "early", run_at=START + timedelta(seconds=20))
    await started.enqueue(adds, delay=10)
    await fake.advance_to(START + timedelta(minutes=1))
    assert seen == [("added", 15), ("early", 20), ("late", 60)]
    with pytest.raises(ConfigurationError, match=r"forward only: it is 2026-03-01T12:01"):
        await fake.advance_to(START)
    with pytest.raises(ConfigurationError, match="by must be 0 or more seconds"):
        await fake.advance(-1)


async def test_a_loop_that_sleeps_is_followed(fake: FakeClock) -> None:
    """As a scheduler does: what it does between two sleeps is done before the time goes on."""
    ticks: list[float] = []

    async def tick() -> None:
        while len(ticks) < 3:
            await clock.sleep_until(clock.now() + 10)
            await asyncio.to_thread(time.sleep, 0.02)
            ticks.append(clock.now() - START.timestamp())

    task = asyncio.create_task(tick())
    await asyncio.sleep(0)
    await fake.advance(25)
    assert ticks == [10, 20]
    await fake.advance_until(task.done)
    assert ticks == [10, 20, 30]


async def test_a_task_that_does_not_end_is_named(manager: TaskManager) -> None:
    """The time does not go on without it, and the test does not hang."""
    release = asyncio.Event()

    async def hangs() -> None:
        await release.wait()

    with FakeClock(manager, within=0.02) as fake:
        await manager.startup()
        await manager.enqueue(hangs)
        with pytest.raises(TimeoutError, match=r"hangs still runs after 0\.02 real seconds"):
            await fake.advance(60)
        release.set()
        await manager.shutdown()


async def test_waiting_for_what_never_comes_ends(started: TaskManager, fake: FakeClock) -> None:
    """When nothing is due any more."""
    with pytest.raises(TimeoutError, match="nothing waits for its time any more"):
        await fake.advance_until(lambda: False)


async def test_the_real_clock_comes_back_with_what_waits() -> None:
    """After the test, and after one within another; what was cancelled stays so."""
    called: list[str] = []
    done = asyncio.Event()
    past = datetime(2020, 1, 1, tzinfo=UTC)
    with FakeClock(start=past) as outer:
        with FakeClock(start=past - timedelta(days=1)) as inner:
            assert clock.current() is inner
            clock.call_at(past.timestamp() + 1, called.append, "inner")
            clock.call_at(past.timestamp() + 2, called.append, "cancelled").cancel()
        assert clock.current() is outer
        await asyncio.sleep(0)
        await outer.advance(1)
        assert called == ["inner"]
        clock.call_at(past.timestamp() + 60, done.set)
    assert clock.current() is None
    assert abs(clock.now() - time.time()) < 1
    await asyncio.wait_for(done.wait(), 5)
    assert called == ["inner"]


async def test_the_time_is_moved_where_the_tasks_run(fake: FakeClock) -> None:
    """On another loop nothing could be waited for; the error tells how to do it with TestClient."""
    clock.call_at(START.timestamp() + 1, print)

    def elsewhere() -> None:
        with pytest.raises(ConfigurationError, match=r"client\.portal\.call\(clock\.advance"):
            asyncio.run(fake.advance(1))

    await asyncio.to_thread(elsewhere)


def test_clocks_end_one_within_the_other() -> None:
    """There is one time for all, so whoever runs two things side by side is told."""
    outer, inner = FakeClock(), FakeClock()
    with outer:
        inner.__enter__()
        with pytest.raises(ConfigurationError, match="one within the other"):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
    assert clock.current() is None
