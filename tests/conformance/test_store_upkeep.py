"""What every store does for recovery, retention and settings."""

from __future__ import annotations

import time

import pytest

from fastapi_taskflow.store import Change, Instance, Store, TaskQuery
from fastapi_taskflow.task.record import FINISHED, LIVE, TaskStatus
from tests.conformance.conftest import Add, held

S = TaskStatus


async def test_orphans_are_live_tasks_of_others_oldest_first(store: Store, add: Add) -> None:
    """Whole records, pending or running, whose owner is none of the living."""
    old = (await add(owner="dead", payload="p"))[0]
    await add(owner="alive")
    await add(owner="dead", status=S.INTERRUPTED)
    await add(owner="dead", status=S.SUCCESS)
    young = (await add(owner="", status=S.RUNNING))[0]
    found = await store.orphans(frozenset({"alive", "other"}), limit=10)
    assert [record.task_id for record in found] == [old.task_id, young.task_id]
    assert found[0] == await store.get(old.task_id)
    assert [record.task_id for record in await store.orphans(frozenset({"alive"}), limit=1)] == [old.task_id]
    assert len(await store.orphans(frozenset(), limit=10)) == 3


async def test_orphan_that_finished_is_none_any_more(store: Store, add: Add) -> None:
    """The sweep does not see what has ended since."""
    (record,) = await add(owner="dead")
    await store.write([Change(record.evolve(status=S.CANCELLED, end_time=1.0), record)])
    assert await store.orphans(frozenset(), limit=10) == []


@pytest.mark.parametrize("status", sorted(FINISHED - {S.INTERRUPTED}))
async def test_prune_deletes_what_ended_before(store: Store, add: Add, status: TaskStatus) -> None:
    """Old finished records go, with what the counters had of them."""
    (old,) = await add(status=status, start_time=1.0, end_time=99.0)
    (edge,) = await add(status=status, start_time=1.0, end_time=100.0)
    assert await store.prune(before=100.0, limit=10) == 1
    assert await store.get(old.task_id) is None
    assert await store.get(edge.task_id) is not None
    stats = (await store.stats())["send"]
    assert stats.counts == {status: 1}
    assert stats.duration_sum == pytest.approx(99.0 if status in {S.SUCCESS, S.FAILED} else 0.0)
    assert [record.task_id for record in (await store.list(TaskQuery())).records] == [edge.task_id]
    assert await store.prune(before=101.0, limit=10) == 1
    assert await store.stats() == {}


@pytest.mark.parametrize("status", sorted(LIVE | {S.INTERRUPTED}))
async def test_prune_leaves_what_is_live_or_waits_for_an_operator(store: Store, add: Add, status: TaskStatus) -> None:
    """Age alone deletes nothing that may still matter."""
    await add(status=status, start_time=1.0, end_time=2.0)
    assert await store.prune(before=1e12, limit=10) == 0
    assert (await store.stats())["send"].counts == {status: 1}


async def test_prune_is_bounded_and_takes_the_oldest(store: Store, add: Add) -> None:
    """At most ``limit`` a call, in the order of their ends."""
    young = (await add(status=S.SUCCESS, end_time=50.0))[0]
    await add(5, status=S.SUCCESS, end_time=10.0)
    assert [await store.prune(before=100.0, limit=3) for _ in range(2)] == [3, 2 + 1]
    assert await store.get(young.task_id) is None
    assert await store.prune(before=100.0, limit=3) == 0


async def test_pruned_key_is_free_again(store: Store, add: Add) -> None:
    """An idempotency key lasts as long as its record."""
    (done,) = await add(status=S.SUCCESS, end_time=1.0)
    await store.prune(before=2.0, limit=1)
    assert not (await store.write([Change(done)])).duplicates
    assert len((await store.list(TaskQuery())).records) == 1


async def test_instances_beat_and_are_forgotten(store: Store, add: Add) -> None:
    """One row an instance, its newest sign of life; its tasks keep their owner."""
    first = Instance("a", "host", 1, 2, 3.0, 4.0)
    later = Instance("a", "host", 1, 2, 3.0, 9.5)
    other = Instance("b", "host", 2, 0, 3.0, 5.0)
    (task,) = await add(owner="a")
    for instance in (first, other, later):
        await store.beat(instance)
    assert sorted(await store.instances(), key=lambda one: one.instance_id) == [later, other]
    await store.forget("a")
    await store.forget("nobody")
    assert list(await store.instances()) == [other]
    assert (await held(store, task.task_id)).owner == "a"


async def test_setting_is_kept_by_the_first(store: Store) -> None:
    """Who comes later gets what is there."""
    assert await store.get_meta("key") is None
    assert await store.put_meta("key", "one") == "one"
    assert await store.put_meta("key", "two") == "one"
    assert await store.get_meta("key") == "one"


async def test_expired_setting_is_free(store: Store) -> None:
    """After its time a setting is as if it had never been."""
    await store.put_meta("key", "old", expires_at=time.time() - 1)
    assert await store.get_meta("key") is None
    assert await store.put_meta("key", "new", expires_at=time.time() + 1_000) == "new"
    assert await store.put_meta("key", "newer") == "new"
    assert await store.get_meta("key") == "new"


async def test_close_is_harmless_twice(store: Store) -> None:
    """Closing what is closed is nothing."""
    await store.close()
    await store.close()
