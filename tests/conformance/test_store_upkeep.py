"""What every store does for recovery, retention and settings."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence

import pytest

from fastapi_taskflow.store import OWNERLESS_GRACE, Act, Change, Instance, Store, TaskQuery
from fastapi_taskflow.task.record import FINISHED, LIVE, LogEntry, TaskStatus
from tests.conformance.conftest import Add, held

S = TaskStatus


def instance(name: str) -> Instance:
    """An instance of that id."""
    return Instance(name, "host", 1, 2, 3.0, 4.0)


async def beat_of(store: Store, name: str) -> float:
    """The last sign of life of an instance."""
    return next(each.heartbeat_at for each in await store.instances() if each.instance_id == name)


async def test_a_claim_takes_the_live_tasks_of_the_dead_oldest_first(store: Store, add: Add) -> None:
    """Whole records, pending or running, whose owner is judged dead or has no row."""
    for name in ("me", "alive", "dead"):
        await store.beat(instance(name))
    old = (await add(owner="dead", payload="p", retry_of="before"))[0]
    for facts in ({"owner": "alive"}, {"owner": "me"}, {"owner": "dead", "status": S.INTERRUPTED}):
        await add(**facts)
    await add(owner="dead", status=S.SUCCESS)
    young = (await add(owner="nobody", status=S.RUNNING))[0]
    dead = {"dead": await beat_of(store, "dead")}
    assert [each.task_id for each in await store.claim("me", dead, limit=1)] == [old.task_id]
    found = await held(store, old.task_id)
    assert found == old._replace(owner="me", version=2, payload=found.payload)
    assert [each.task_id for each in await store.claim("me", dead, limit=10)] == [young.task_id]
    assert await store.claim("me", dead, limit=10) in ([], ())
    assert await store.owned("me") >= {old.task_id, young.task_id}


async def test_a_claim_leaves_one_that_has_beaten_since(store: Store, add: Add) -> None:
    """It was judged by an older sign of life."""
    await store.beat(instance("slow"))
    await add(owner="slow")
    judged = {"slow": await beat_of(store, "slow") - 1.0}
    assert not await store.claim("me", judged, limit=10)


async def test_what_was_claimed_is_fenced(store: Store, add: Add) -> None:
    """The old owner's result is refused, the new owner's is taken."""
    (record,) = await add(owner="slow", status=S.RUNNING)
    (claimed,) = await store.claim("me", {}, limit=10)
    late = await store.write([Change(record.evolve(status=S.SUCCESS, end_time=1.0), record)])
    assert late.stale == {record.task_id}
    assert not (await store.write([Change(claimed.evolve(status=S.FAILED, end_time=1.0), claimed)])).stale
    assert (await held(store, record.task_id)).status is S.FAILED


async def test_what_finished_is_not_claimed(store: Store, add: Add) -> None:
    """The sweep does not see what has ended since."""
    (record,) = await add(owner="dead")
    await store.write([Change(record.evolve(status=S.CANCELLED, end_time=1.0), record)])
    assert not await store.claim("me", {}, limit=10)


async def test_a_new_task_without_an_owner_is_left_to_who_added_it(store: Store, add: Add) -> None:
    """For a moment; then anybody takes it."""
    await add(owner="", created_at=time.time())
    assert not await store.claim("me", {}, limit=10)
    (old,) = await add(owner="", created_at=time.time() - OWNERLESS_GRACE - 1)
    assert [each.task_id for each in await store.claim("me", {}, limit=10)] == [old.task_id]


async def test_one_that_waits_can_be_taken_from_its_owner(store: Store, add: Add) -> None:
    """Whole, and from then on the former owner's changes are refused; whoever comes second gets nothing."""
    (record,) = await add(owner="other", run_at=5.0, tags=("a",), schedule="@once:k")
    taken = await store.take(record.task_id, of="other", owner="me")
    assert taken is not None
    assert taken == (await held(store, record.task_id))
    assert (taken.owner, taken.version, taken.run_at, taken.tags) == ("me", record.version + 1, 5.0, ("a",))
    assert await store.take(record.task_id, of="other", owner="third") is None
    started = record.evolve(status=S.RUNNING)
    assert (await store.write([Change(started, record)])).stale == {record.task_id}
    assert (await store.write([Change(taken.evolve(status=S.RUNNING), taken)])).stale == frozenset()
    assert await store.take(record.task_id, of="me", owner="other") is None
    assert await store.take("nobody", of="other", owner="me") is None


async def test_two_that_claim_at_once_share(store: Store, add: Add) -> None:
    """Nobody gets what another got."""
    ids = {record.task_id for record in await add(40, owner="dead")}
    for number in range(4):
        await store.beat(instance(f"i{number}"))
    found = await asyncio.gather(*(store.claim(f"i{number}", {}, limit=10) for number in range(4)))
    names = [each.task_id for claimed in found for each in claimed]
    assert len(names) == len(set(names))
    assert set(names) <= ids
    assert {each.owner for claimed in found for each in claimed} <= {f"i{number}" for number in range(4)}


async def test_a_request_to_cancel_reaches_the_owner_once(store: Store, add: Add) -> None:
    """Whoever it is by then; requests for what has ended are dropped."""
    mine, theirs = (await add(owner="me"))[0], (await add(owner="other", status=S.RUNNING))[0]
    (over,) = await add(owner="me", status=S.SUCCESS)
    for task_id in (mine.task_id, mine.task_id, theirs.task_id, over.task_id, "unknown"):
        await store.ask_to_cancel(task_id)
    assert list(await store.asked_to_cancel("me")) == [mine.task_id]
    assert list(await store.asked_to_cancel("me")) == []
    await store.claim("me", {}, limit=10)
    assert list(await store.asked_to_cancel("me")) == [theirs.task_id]


async def test_changes_are_what_lives_and_what_is_new(store: Store, add: Add) -> None:
    """Old ones that ended long ago are not in it."""
    (lives,) = await add()
    (since,) = await add(status=S.SUCCESS, end_time=2_000_000_000.0)
    await add(status=S.SUCCESS, end_time=1_700_000_500.0)
    (added,) = await add(status=S.FAILED, created_at=1_900_000_000.0, end_time=1_900_000_001.0)
    found = await store.changes(1_800_000_000.0, limit=10)
    assert {each.task_id for each in found} == {lives.task_id, since.task_id, added.task_id}
    assert {each.task_id: each.version for each in found}[lives.task_id] == 1


async def test_numbers_of_a_host_are_kept_and_merged(store: Store) -> None:
    """What is gone is put together once, and counts on under another name."""
    for name, text in (("a", "1"), ("b", "2"), ("b", "3"), ("c", "4")):
        await store.save_numbers(name, "here", text)
    await store.save_numbers("z", "there", "9")
    assert await store.numbers("here") == {"a": "1", "b": "3", "c": "4"}

    def add_up(texts: Sequence[str]) -> str:
        return str(sum(map(int, texts)))

    await store.merge_numbers("here", ["a", "b", "never"], "gone", add_up)
    await store.merge_numbers("here", ["a", "b"], "gone", add_up)
    assert await store.numbers("here") == {"c": "4", "gone": "4"}
    await store.merge_numbers("here", ["c"], "gone", add_up)
    assert await store.numbers("here") == {"gone": "8"}
    assert await store.numbers("there") == {"z": "9"}


async def test_numbers_of_hosts_that_are_gone_are_forgotten(store: Store) -> None:
    """A container's name is new with each start; one that lives keeps its own, however long nothing happens there."""
    await store.save_numbers("a", "gone", "1")
    await store.save_numbers("b", "alive", "2")
    await store.beat(Instance("b", "alive", 1, 1, 0.0, 0.0))
    await store.forget_numbers(60.0)
    assert await store.numbers("gone") == {"a": "1"}
    await store.forget_numbers(-60.0)
    assert await store.numbers("gone") == {}
    assert await store.numbers("alive") == {"b": "2"}
    await store.save_numbers("a", "gone", "3")
    assert await store.numbers("gone") == {"a": "3"}


async def test_a_wait_for_signals_ends(store: Store) -> None:
    """Also without any."""
    assert await store.signalled(0.01) is False


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
    (task,) = await add(owner="a")
    for name in ("a", "b"):
        await store.beat(instance(name))
    first = await beat_of(store, "a")
    assert abs(first - time.time()) < 60
    while await beat_of(store, "a") == first:
        await store.beat(instance("a"))
    second = await beat_of(store, "a")
    assert second > first
    rows = {each.instance_id: each for each in await store.instances()}
    assert set(rows) == {"a", "b"}
    assert all(0 <= each.age < 60 for each in rows.values())
    assert dataclasses.replace(rows["a"], heartbeat_at=4.0, age=0.0) == instance("a")
    await store.forget("a", beat=first)
    assert len(await store.instances()) == 2
    await store.forget("a", beat=second)
    await store.forget("nobody")
    assert [each.instance_id for each in await store.instances()] == ["b"]
    await store.forget("b")
    assert not await store.instances()
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


async def test_settings_are_replaced_listed_and_dropped(store: Store) -> None:
    """By their exact prefix."""
    for key, value in (("queue:b", "1"), ("queue:a", "2"), ("queues", "3"), ("Queue:c", "4"), ("q%:x", "5")):
        await store.set_meta(key, value)
    await store.set_meta("queue:a", "6")
    assert list((await store.metas("queue:")).items()) == [("queue:a", "6"), ("queue:b", "1")]
    assert await store.metas("q%") == {"q%:x": "5"}
    assert await store.drop_meta("queue:a")
    assert not await store.drop_meta("queue:a")
    assert await store.get_meta("queue:a") is None
    assert await store.put_meta("queue:b", "7") == "1"


async def test_a_setting_that_ended_is_not_listed(store: Store) -> None:
    """And one that is set has no end any more."""
    await store.put_meta("k:1", "old", expires_at=time.time() - 1)
    assert not await store.metas("k:")
    await store.set_meta("k:1", "new")
    assert await store.metas("k:") == {"k:1": "new"}


def act(number: int, target: str = "t") -> Act:
    """An act; later ones have greater ids."""
    return Act(f"{number:03}", float(number), "ann", "task.cancel", target, detail='{"a":1}', address="127.0.0.1")


async def test_the_audit_log_is_read_newest_first_page_by_page(store: Store) -> None:
    """All of it, or what was done to one target."""
    acts = [act(number, "even" if number % 2 == 0 else "odd") for number in range(6)]
    for each in (*acts, acts[0]):
        await store.add_act(each)
    assert list(await store.acts(limit=10)) == acts[::-1]
    assert list(await store.acts(target="odd", limit=2)) == [acts[5], acts[3]]
    assert list(await store.acts(target="odd", before="003", limit=2)) == [acts[1]]


async def test_old_acts_are_pruned(store: Store) -> None:
    """The oldest first, at most so many."""
    for number in range(5):
        await store.add_act(act(number))
    assert await store.prune_acts(before=3.0, limit=2) == 2
    assert await store.prune_acts(before=3.0, limit=2) == 1
    assert [each.act_id for each in await store.acts()] == ["004", "003"]


async def test_the_texts_of_a_task_are_replaced(store: Store, add: Add) -> None:
    """Nothing else is, and not those of a row that has changed meanwhile."""
    (record,) = await add(payload="old", result="1", logs=(LogEntry(1.0, "info", "old"),))
    fresh = record._replace(
        payload="new", result="2", follow="f", logs=(LogEntry(1.0, "info", "new"),), status=S.FAILED
    )
    done = await store.rewrite(fresh)
    assert done is store.persistent
    if done:
        found = await held(store, record.task_id)
        assert found == fresh._replace(status=S.PENDING)
        assert not await store.rewrite(record._replace(version=7))
        assert not await store.rewrite(record._replace(task_id="none"))
        assert await held(store, record.task_id) == found
