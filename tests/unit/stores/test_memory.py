"""What is particular to the store in memory: a bounded history that the garbage collector does not see."""

from __future__ import annotations

import gc

from fastapi_taskflow.store import Change, TaskQuery
from fastapi_taskflow.stores.memory import MemoryStore
from fastapi_taskflow.task.record import LogEntry, TaskRecord, TaskStatus


def task(number: int, status: TaskStatus = TaskStatus.PENDING, **facts: float) -> TaskRecord:
    """A task that is told from others by its number."""
    logs = (LogEntry(1.0, "info", "a line", 1, {"k": 1}),)
    return TaskRecord(f"id-{number:05}", "f", status, float(number), owner="me", tags=("a",), logs=logs, **facts)  # type: ignore[arg-type] # times only


async def test_oldest_finished_are_dropped_first() -> None:
    """The bound is on finished ones, in the order in which they finished; counters follow."""
    store = MemoryStore(max_finished=2)
    first, second, third = (task(number) for number in range(3))
    await store.write([Change(record) for record in (first, second, third)])
    for record in (second, first, third):
        done = record.evolve(status=TaskStatus.SUCCESS, start_time=1.0, end_time=2.0)
        await store.write([Change(done, record)])
    page = await store.list(TaskQuery())
    assert [record.task_id for record in page.records] == [third.task_id, first.task_id]
    assert page.total == 2
    stats = (await store.stats())["f"]
    assert (stats.counts, stats.duration_count, stats.duration_sum) == ({TaskStatus.SUCCESS: 2}, 2, 2.0)


async def test_live_tasks_are_never_dropped() -> None:
    """However many wait, all of them are held."""
    store = MemoryStore(max_finished=0)
    await store.write([Change(task(number)) for number in range(5_000)])
    await store.write([Change(task(number, TaskStatus.FAILED)) for number in range(5_000, 5_100)])
    assert (await store.stats())["f"].counts == {TaskStatus.PENDING: 5_000}
    assert len((await store.list(TaskQuery(limit=6_000))).records) == 5_000


async def test_history_is_not_tracked_by_the_garbage_collector() -> None:
    """Ten times the finished tasks are no more objects for a collection to visit."""
    store = MemoryStore(max_finished=20_000)

    async def tracked_after(numbers: range) -> int:
        await store.write(
            [Change(task(number, TaskStatus.SUCCESS, start_time=1.0, end_time=2.0)) for number in numbers]
        )
        gc.collect()
        gc.collect()
        return len(gc.get_objects())

    few = await tracked_after(range(1_000))
    many = await tracked_after(range(1_000, 11_000))
    assert many - few < 100


async def test_keys_of_dropped_tasks_do_not_pile_up() -> None:
    """The order of listing is cleaned up now and then."""
    store = MemoryStore(max_finished=10)
    for number in range(5_000):
        await store.write([Change(task(number, TaskStatus.SUCCESS))])
    assert len(store._order) < 2_000
    assert [record.task_id for record in (await store.list(TaskQuery(limit=2))).records] == ["id-04999", "id-04998"]
