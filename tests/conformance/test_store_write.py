"""What every store does with changes, and what it counts of them."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from fastapi_taskflow.store import DURATION_BOUNDS, Change, FunctionStats, Store, TaskQuery, WriteResult
from fastapi_taskflow.task.record import Attempt, LogEntry, SpanFact, TaskStatus
from tests.conformance.conftest import Add, Make, held

S = TaskStatus


async def test_new_record_is_kept_whole(store: Store, make: Make) -> None:
    """What goes in comes out, apart from arguments, which memory has no use for."""
    record = make(
        status=S.FAILED, version=7, queue="slow", priority=-3, source="manual", executor="thread", attempt=2,
        max_attempts=4, run_at=5.5, start_time=6.25, end_time=7.125, error="no", error_type="ValueError",
        stacktrace="Traceback…", tags=("a", "b,c", '"q"', "é\n"), idempotency_key="k", payload='{"args": [1]}',
        retry_of="other", requeue_on_interrupt=True, recoveries=2, traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
        tracestate="x=y", span_id="c" * 16, target="m:f",
        attempts=(Attempt(1, 1.0, 2.0, "E", "e", "d" * 16), Attempt(2, 3.0, 4.0)),
        logs=(LogEntry(1.0, "info", "ü", 1, {"n": [1, None]}), LogEntry(2.0, "error", "x", 2)),
        spans=(SpanFact("e" * 16, "c" * 16, "GET", "client", 6.5, 6.75, "ok", {"k": "v"}),),
        result="[1,2]", progress=0.5, progress_text="half", resolution="retried", expires_at=2.5,
        parent_id="p", group_id="g", schedule="nightly", follow="{}",
    )  # fmt: skip
    await store.write([Change(record)])
    expected = record if store.persistent else record._replace(payload=None)
    assert await store.get(record.task_id) == expected


async def test_unknown_id_is_none(store: Store) -> None:
    """An id that nobody has is no record."""
    assert await store.get("nobody") is None


async def test_empty_batch_is_written(store: Store) -> None:
    """No changes, no trouble."""
    assert await store.write([]) == WriteResult()


async def test_second_insert_of_an_id_is_a_duplicate(store: Store, make: Make) -> None:
    """The first one with an id stays as it is; the rest of the batch is written."""
    first, other = make(queue="first"), make()
    await store.write([Change(first)])
    again = first._replace(queue="second", created_at=first.created_at + 0.5)
    result = await store.write([Change(other), Change(again)])
    assert result == WriteResult(duplicates=frozenset({first.task_id}))
    assert (await held(store, first.task_id)).queue == "first"
    assert await store.get(other.task_id) == other
    assert (await store.stats())["send"].counts == {S.PENDING: 2}


async def test_duplicate_of_a_finished_task_is_refused(store: Store, make: Make) -> None:
    """A key is taken for as long as its task is held."""
    done = make(status=S.SUCCESS, version=3)
    await store.write([Change(done)])
    for again in (done._replace(owner="another"), done._replace(created_at=1.0), done._replace(version=1)):
        assert (await store.write([Change(again)])).duplicates == {done.task_id}
    assert await store.get(done.task_id) == done
    assert (await store.stats())["send"].counts == {S.SUCCESS: 1}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"owner": "somebody"}, {}),
        ({"owner": "somebody"}, {"owner": "somebody"}),
        ({"owner": "somebody"}, {"owner": "another"}),
        ({"version": 3}, {"version": 4}),
    ],
)
async def test_change_that_is_late_or_of_another_owner_is_stale(
    store: Store, add: Add, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Whoever lost the lease changes nothing, counters included; the rest of the batch is written."""
    mine, other = (await add(version=5))[0], (await add())[0]
    changes = [
        Change(mine.evolve(status=S.CANCELLED, end_time=9.0, **after), mine._replace(**before)),
        Change(other.evolve(status=S.RUNNING), other),
    ]
    assert await store.write(changes) == WriteResult(stale=frozenset({mine.task_id}))
    assert await store.get(mine.task_id) == mine
    assert (await held(store, other.task_id)).status is S.RUNNING
    assert (await store.stats())["send"].counts == {S.PENDING: 1, S.RUNNING: 1}


async def test_change_of_a_task_that_is_gone_is_stale(store: Store, make: Make) -> None:
    """There is nothing to change."""
    record = make()
    assert (await store.write([Change(record.evolve(), record)])).stale == {record.task_id}


async def test_coalesced_versions_are_taken(store: Store, add: Add) -> None:
    """The new version need not be the next one, only the committed one must match."""
    (record,) = await add()
    newest = record.evolve(status=S.RUNNING).evolve(status=S.SUCCESS, start_time=1.0, end_time=2.0)
    assert await store.write([Change(newest, record)]) == WriteResult()
    assert await store.get(record.task_id) == newest


@pytest.mark.parametrize("again", [S.PENDING, S.RUNNING, S.SUCCESS])
async def test_new_task_whose_answer_got_lost_is_written_again(store: Store, make: Make, again: TaskStatus) -> None:
    """The writer does not know that it is there, and may have gone on meanwhile: no duplicate, and counted once."""
    record = make(start_time=1.0, end_time=2.0)
    await store.write([Change(record)])
    newer = record if again is S.PENDING else record.evolve(status=again)
    assert await store.write([Change(make()), Change(newer)]) == WriteResult()
    assert await store.get(record.task_id) == newer
    stats = (await store.stats())["send"]
    assert sum(stats.counts.values()) == 2
    assert stats.counts[again] == (2 if again is S.PENDING else 1)
    assert stats.duration_count == (1 if again is S.SUCCESS else 0)


@pytest.mark.parametrize("taken_over", [False, True])
async def test_change_whose_answer_got_lost_is_written_again(store: Store, add: Add, *, taken_over: bool) -> None:
    """What it replaces is no longer what the writer believes, and the counters know that."""
    record = (await add(status=S.RUNNING, owner="before" if taken_over else "me"))[0]
    first = record.evolve(status=S.FAILED, owner="me", start_time=1.0, end_time=2.0)
    assert await store.write([Change(first, record)]) == WriteResult()
    for newer in (first, first.evolve(end_time=4.0), first.evolve().evolve(status=S.CANCELLED)):
        assert await store.write([Change(newer, record)]) == WriteResult()
        assert await store.get(record.task_id) == newer
        stats = (await store.stats())["send"]
        assert stats.counts == {newer.status: 1}
        assert (stats.duration_count, stats.duration_sum) == (
            (0, 0.0) if newer.status is S.CANCELLED else (1, newer.duration)
        )


async def test_takeover_fences_the_old_owner(store: Store, add: Add) -> None:
    """After another instance took a task, the first one's result is refused."""
    (record,) = await add(owner="old")
    taken = record.evolve(owner="new")
    assert await store.write([Change(taken, record)]) == WriteResult()
    late = record.evolve(status=S.SUCCESS, end_time=1.0)
    assert (await store.write([Change(late, record)])).stale == {record.task_id}
    assert (await held(store, record.task_id)).owner == "new"


async def test_finished_task_can_be_amended(store: Store, make: Make) -> None:
    """A finished record takes a newer version too, and is counted once."""
    done = make(status=S.SUCCESS, start_time=1.0, end_time=2.0)
    await store.write([Change(done)])
    amended = done.evolve(result="1", end_time=4.0)
    assert await store.write([Change(amended, done)]) == WriteResult()
    stats = (await store.stats())["send"]
    assert (stats.counts, stats.duration_count, stats.duration_sum) == ({S.SUCCESS: 1}, 1, 3.0)


async def test_counters_follow_every_transition(store: Store, add: Add) -> None:
    """At each step the counters say what is stored."""
    (record,) = await add()
    steps = [S.RUNNING, S.PENDING, S.RUNNING, S.FAILED]
    for status in steps:
        new = record.evolve(status=status, start_time=10.0, end_time=10.5 if status is S.FAILED else None)
        await store.write([Change(new, record)])
        record = new
        assert (await store.stats())["send"].counts == {status: 1}
    stats = (await store.stats())["send"]
    assert (stats.duration_count, stats.duration_sum) == (1, 0.5)


@pytest.mark.parametrize("bound", [0, 7, len(DURATION_BOUNDS)])
async def test_duration_falls_into_the_bucket_that_ends_at_it(store: Store, make: Make, bound: int) -> None:
    """Bounds are upper bounds and belong to their bucket; the last bucket holds the rest."""
    seconds = DURATION_BOUNDS[bound] if bound < len(DURATION_BOUNDS) else 1e6
    await store.write([Change(make(status=S.SUCCESS, start_time=0.0, end_time=seconds))])
    expected = tuple(int(place == bound) for place in range(len(DURATION_BOUNDS) + 1))
    assert (await store.stats())["send"].buckets == expected


@pytest.mark.parametrize("status", [S.CANCELLED, S.INTERRUPTED, S.REJECTED])
async def test_only_success_and_failure_have_durations(store: Store, make: Make, status: TaskStatus) -> None:
    """A task that was cut off says nothing of how long it takes."""
    await store.write([Change(make(status=status, start_time=0.0, end_time=1.0))])
    assert await store.stats() == {"send": FunctionStats({status: 1})}


async def test_stats_are_per_function(store: Store, add: Add) -> None:
    """Functions are counted apart, and none is there before its first task."""
    assert await store.stats() == {}
    await add(2, func_name="a")
    await add(3, func_name="b", status=S.CANCELLED)
    stats = await store.stats()
    assert {name: one.counts for name, one in stats.items()} == {"a": {S.PENDING: 2}, "b": {S.CANCELLED: 3}}


async def test_large_batch_is_one_transaction(store: Store, add: Add) -> None:
    """Batches of any size are written, refused rows among them found."""
    records = await add(333)
    changes = [Change(record.evolve(status=S.RUNNING), record) for record in records]
    changes[100] = dataclasses.replace(changes[100], committed=records[100]._replace(owner="somebody"))
    assert (await store.write(changes)).stale == {records[100].task_id}
    assert (await store.stats())["send"].counts == {S.RUNNING: 332, S.PENDING: 1}


HARD_TEXTS = {
    "lone surrogate": json.dumps("x") + "\ud800",
    "NUL": "a\0b",
    "astral": "🎉",
    "NaN": '{"args": [NaN, Infinity]}',
    "10 MB": "x" * 10_000_000,
}


@pytest.mark.parametrize("kind", HARD_TEXTS)
async def test_hard_text_is_stored_and_harms_nothing_else(store: Store, make: Make, kind: str) -> None:
    """Text that databases dislike is kept, spelled out where it must be, and its neighbours are written."""
    text = HARD_TEXTS[kind]
    hard, plain = (
        make(payload=text, result=text, error=text[:100], tags=(text[:100],), func_name=f"f{text[:9]}"),
        make(),
    )
    assert await store.write([Change(hard), Change(plain)]) == WriteResult()
    kept = await held(store, hard.task_id)
    spelled = text.encode("utf-8", "backslashreplace").decode()
    if kept.result != text:
        spelled = spelled.replace("\0", "\\u0000")
    assert kept.result in {text, spelled}
    assert kept.payload in ({text, spelled} if store.persistent else {None})
    assert kept.tags == hard.tags
    assert await store.get(plain.task_id) == plain
    assert len((await store.list(TaskQuery())).records) == 2
    assert sum(sum(one.counts.values()) for one in (await store.stats()).values()) == 2
    done = hard.evolve(status=S.SUCCESS, error=text[:100], start_time=1.0, end_time=2.0)
    assert await store.write([Change(done, hard)]) == WriteResult()


async def test_numbers_out_of_range_harm_nothing_else(store: Store, make: Make) -> None:
    """A priority beyond 64 bits and a progress that is no number are made to fit."""
    odd, plain = make(priority=10**30, progress=math.nan, ready_at=math.nan), make()
    assert await store.write([Change(odd), Change(plain)]) == WriteResult()
    assert (await held(store, odd.task_id)).priority >= 2**63 - 1
    assert await store.get(plain.task_id) == plain


async def test_log_fields_that_are_not_json_are_shown(store: Store, make: Make) -> None:
    """A log line with any object in it is kept as text."""
    circle: dict[str, object] = {}
    circle["self"] = circle
    extras: list[dict[Any, Any]] = [{"o": object()}, {("a",): 1}, circle]
    for extra in extras:
        record = make(status=S.SUCCESS, logs=(LogEntry(1.0, "info", "x", 1, extra),))
        await store.write([Change(record)])
        (line,) = (await held(store, record.task_id)).logs
        assert (line.at, line.message) == (1.0, "x")
