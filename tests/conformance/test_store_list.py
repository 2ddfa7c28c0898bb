"""How every store lists: filters, order, pages, totals."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from fastapi_taskflow.store import Change, Store, TaskQuery
from fastapi_taskflow.task.record import LIVE, LogEntry, TaskStatus
from tests.conformance.conftest import Add, Make

S = TaskStatus
TRACE = "0123456789abcdef" * 2


async def ids(store: Store, **query: Any) -> list[str]:
    """The ids of one page."""
    return [record.task_id for record in (await store.list(TaskQuery(**query))).records]


async def walk(store: Store, **query: Any) -> list[str]:
    """All ids, page after page."""
    found, cursor = [], None
    while True:
        page = await store.list(TaskQuery(cursor=cursor, **query))
        found += [record.task_id for record in page.records]
        assert len(page.records) <= query["limit"]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_newest_first_unless_asked_otherwise(store: Store, add: Add) -> None:
    """Both orders go by the time of adding."""
    expected = [record.task_id for record in await add(5)]
    assert await ids(store) == expected[::-1]
    assert await ids(store, oldest_first=True) == expected


async def test_late_arrival_is_sorted_in(store: Store, add: Add) -> None:
    """Order is by created_at, not by arrival."""
    (new,) = await add(created_at=2e9)
    (old,) = await add(created_at=1e9)
    assert await ids(store) == [new.task_id, old.task_id]


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("filters", [{}, {"statuses": frozenset({S.PENDING, S.FAILED})}, {"func_name": "f*"}])
async def test_pages_through_equal_times_miss_and_repeat_nothing(
    store: Store, add: Add, filters: dict[str, Any], *, oldest_first: bool
) -> None:
    """1,000 tasks added at one instant are each seen once."""
    expected = []
    for func_name in ("f1", "f2"):
        for status in (S.PENDING, S.FAILED):
            records = await add(250, created_at=5.0, func_name=func_name, status=status)
            expected += [record.task_id for record in records]
    found = await walk(store, limit=97, oldest_first=oldest_first, **filters)
    assert found == sorted(expected, reverse=not oldest_first)


async def test_page_that_ends_with_the_last_record_is_the_last(store: Store, add: Add) -> None:
    """No empty page follows."""
    await add(4)
    assert (await store.list(TaskQuery(limit=4))).next_cursor is None
    assert (await store.list(TaskQuery(limit=3))).next_cursor is not None


async def test_tasks_added_meanwhile_do_not_shift_pages(store: Store, add: Add) -> None:
    """A cursor names a place, not a number of rows."""
    old = await add(4)
    first = await store.list(TaskQuery(limit=2))
    await add(3)
    second = await store.list(TaskQuery(limit=2, cursor=first.next_cursor))
    assert [record.task_id for record in second.records] == [old[1].task_id, old[0].task_id]


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "!!!!", base64.b64encode(b"[1]").decode(), base64.b64encode(b'["a", 1, 0]').decode()]
)
async def test_wrong_cursor_is_a_value_error(store: Store, add: Add, cursor: str) -> None:
    """What no page gave is refused in words."""
    await add()
    with pytest.raises(ValueError, match="cursor"):
        await store.list(TaskQuery(cursor=cursor))


async def test_cursor_of_the_other_order_is_refused(store: Store, add: Add) -> None:
    """It would silently skip records."""
    await add(3)
    cursor = (await store.list(TaskQuery(limit=1))).next_cursor
    with pytest.raises(ValueError, match="other order"):
        await store.list(TaskQuery(limit=1, cursor=cursor, oldest_first=True))


@pytest.mark.parametrize(
    ("wanted", "query"),
    [
        ({"status": S.FAILED}, {"statuses": frozenset({S.FAILED})}),
        ({"status": S.FAILED, "func_name": "x"}, {"statuses": frozenset({S.FAILED, S.SUCCESS})}),
        ({"func_name": "mail"}, {"func_name": "mail"}),
        ({"func_name": "mail.a"}, {"func_name": "mail*"}),
        ({"func_name": "m", "status": S.FAILED}, {"func_name": "m", "statuses": frozenset({S.FAILED})}),
        ({"func_name": "odd*name"}, {"func_name": "odd*n*"}),
        ({"queue": "slow"}, {"queue": "slow"}),
        ({"tags": ("a", "b")}, {"tag": "b"}),
        ({"tags": ('q"uo\\te',)}, {"tag": 'q"uo\\te'}),
        ({"tags": ("%",)}, {"tag": "%"}),
        ({"tags": (",",)}, {"tag": ","}),
        ({"tags": ("Größe",)}, {"tag": "Größe"}),
        ({"traceparent": f"00-{TRACE}-{'b' * 16}-01"}, {"trace_id": TRACE}),
        ({"error": "Disk FULL at 50%"}, {"text": "full AT 50%"}),
        ({"func_name": "Report_Daily"}, {"text": "t_d"}),
        ({"task_id": "ABC-def"}, {"text": "abc-D"}),
        ({"tags": ("customer:Ada",)}, {"text": "R:ADA"}),
        ({"error": "naïve"}, {"text": "naïve"}),
        ({"created_at": 9e9}, {"since": 9e9}),
        ({"created_at": 1.0}, {"until": 1.5}),
        ({"created_at": 9e9, "queue": "slow"}, {"since": 8e9, "until": 9e9 + 1, "queue": "slow", "func_name": "send"}),
    ],
)
async def test_filter_finds_what_matches_and_nothing_else(
    store: Store, add: Add, wanted: dict[str, Any], query: dict[str, Any]
) -> None:
    """Each filter, exactly."""
    await add(3, tags=("ab", "a,b", "B", "c", "d"), error="disk at 5", func_name="send")
    await add(1, func_name="taskxd")
    (match,) = await add(1, **wanted)
    assert await ids(store, **query) == [match.task_id]
    nothing = query | {"statuses": frozenset({S.INTERRUPTED})}
    assert await ids(store, **nothing) == []


async def test_until_is_exclusive_and_since_inclusive(store: Store, add: Add) -> None:
    """A day's listing ends before the next day begins."""
    first, second = (await add(created_at=1.0))[0], (await add(created_at=2.0))[0]
    assert await ids(store, since=1.0, until=2.0) == [first.task_id]
    assert await ids(store, since=2.0) == [second.task_id]


async def test_many_functions_are_listed_like_few(store: Store, add: Add) -> None:
    """A filter that comes to many functions gives the same order and pages."""
    expected = [(await add(func_name=f"f{number:03}"))[0].task_id for number in range(80)]
    assert await walk(store, limit=30, statuses=frozenset({S.PENDING})) == expected[::-1]
    assert await walk(store, limit=30, func_name="f*", oldest_first=True) == expected


async def test_total_is_known_where_counters_know_it(store: Store, add: Add) -> None:
    """With filters by status and function there is a total; with others there is none."""
    await add(3, func_name="mail.a")
    await add(2, func_name="mail.b", status=S.FAILED)
    await add(1, func_name="x", status=S.FAILED)
    failed = frozenset({S.FAILED})
    cases: list[tuple[dict[str, Any], int | None]] = [
        ({}, 6), ({"statuses": failed}, 3), ({"func_name": "mail.a"}, 3), ({"func_name": "mail*"}, 5),
        ({"func_name": "mail*", "statuses": failed}, 2), ({"func_name": "nobody"}, 0), ({"queue": "default"}, None),
        ({"text": "mail"}, None), ({"since": 0.0}, None),
    ]  # fmt: skip
    for query, total in cases:
        assert (await store.list(TaskQuery(limit=1, **query))).total == total, query


async def test_page_leaves_out_heavy_fields_only(store: Store, make: Make) -> None:
    """Arguments, spans and result are not for lists; logs and errors are."""
    record = make(
        status=S.FAILED,
        payload="p",
        result="r",
        error="e",
        stacktrace="t",
        tags=("a",),
        logs=(LogEntry(1.0, "info", "x"),),
    )
    await store.write([Change(record)])
    (listed,) = (await store.list(TaskQuery())).records
    assert listed == record._replace(payload=None, result=None)


async def test_page_follows_a_change_of_status(store: Store, add: Add) -> None:
    """A task is under its new status and no more under the old one."""
    (record,) = await add()
    await store.write([Change(record.evolve(status=S.RUNNING), record)])
    assert await ids(store, statuses=frozenset({S.PENDING})) == []
    assert await ids(store, statuses=frozenset({S.RUNNING})) == [record.task_id]


async def test_injection_is_text(store: Store, add: Add) -> None:
    """A filter is a value, whatever it spells."""
    await add()
    for text in ("' OR 1=1 --", '"; DROP TABLE taskflow_tasks; --', "%", "_", "\\"):
        assert await ids(store, text=text) == []
        assert await ids(store, tag=text) == []
        assert await ids(store, func_name=text) == []


@pytest.mark.parametrize("relation", ["parent_id", "group_id", "schedule", "retry_of"])
async def test_relatives_are_found(store: Store, add: Add, relation: str) -> None:
    """By exactly that relation, with other filters and in order."""
    await add(2)
    await add(**{relation: "other"})
    mine = await add(3, **{relation: "x"})
    done = (await add(status=S.SUCCESS, **{relation: "x"}))[0]
    page = await store.list(TaskQuery(**{relation: "x"}, limit=2))  # type: ignore[arg-type]
    assert [each.task_id for each in page.records] == [done.task_id, mine[2].task_id]
    assert page.total is None
    page = await store.list(TaskQuery(**{relation: "x"}, limit=9, cursor=page.next_cursor))  # type: ignore[arg-type]
    assert [each.task_id for each in page.records] == [mine[1].task_id, mine[0].task_id]
    pending = await store.list(TaskQuery(**{relation: "x"}, statuses=frozenset({S.PENDING})))  # type: ignore[arg-type]
    assert len(pending.records) == 3
    assert getattr(pending.records[0], relation) == "x"


async def test_schedules_are_found_by_how_they_begin(store: Store, add: Add) -> None:
    """As one whose name is a pattern; without the star the name is meant as it stands."""
    (plain,) = await add(schedule="@once:")
    (keyed,) = await add(schedule="@once:é%_\U0001f600")
    (ended,) = await add(schedule="@once:a", status=S.SUCCESS)
    for other in ("@once", "once:", "@oncf:", "@ONCE:a", None):
        await add(schedule=other)
    found = await ids(store, schedule="@once:*")
    assert found == [ended.task_id, keyed.task_id, plain.task_id]
    assert await ids(store, schedule="@once:*", statuses=LIVE) == [keyed.task_id, plain.task_id]
    assert await ids(store, schedule="@once:") == [plain.task_id]
    assert await ids(store, schedule="%*") == []


async def test_dead_letters_are_those_that_wait_for_a_decision(store: Store, add: Add) -> None:
    """Failed and interrupted ones, until somebody resolved them."""
    (failed,) = await add(status=S.FAILED)
    (parked,) = await add(status=S.INTERRUPTED, func_name="other")
    await add(status=S.FAILED, resolution="retried")
    await add(status=S.CANCELLED)
    page = await store.list(TaskQuery(dead=True))
    assert [each.task_id for each in page.records] == [parked.task_id, failed.task_id]
    assert page.total is None
    assert [e.task_id for e in (await store.list(TaskQuery(dead=True, func_name="send"))).records] == [failed.task_id]
    await store.write([Change(failed.evolve(resolution="discarded"), failed)])
    assert [e.task_id for e in (await store.list(TaskQuery(dead=True))).records] == [parked.task_id]
