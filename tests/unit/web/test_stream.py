from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import anyio

from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.web.auth.sessions import Sessions
from fastapi_taskflow.web.dashboard.live import events
from fastapi_taskflow.web.stream import KEPT, PER_CLIENT, ChangeFeed, delta
from tests.unit.web import fakes, samples
from tests.unit.web.conftest import locked

if TYPE_CHECKING:
    from sse_starlette import ServerSentEvent


def happen(feed: ChangeFeed, times: int = 1, kind: EventKind = EventKind.STARTED) -> None:
    """Let something happen to a task."""
    for _ in range(times):
        feed.observe(TaskEvent(kind, samples.record(), 0.0))


def sessions_of(parts: fakes.Fakes) -> Sessions:
    """Return the sessions of ``parts``."""
    settings = parts.parts.settings
    return Sessions(parts.parts.store, secret_key="k", lifetime=60, backend=settings.auth)


def test_without_pages_nothing_is_kept() -> None:
    """A feed that nobody reads holds no record."""
    feed = ChangeFeed()
    happen(feed, 10)
    assert not feed._recent
    assert feed.clients == 0


async def test_a_page_gets_what_happens_and_no_log_lines() -> None:
    """Changes are fanned out; lines of a log are not."""
    feed = ChangeFeed()
    page, other = feed.subscribe(), feed.subscribe()
    happen(feed, 2)
    happen(feed, 3, EventKind.LOGGED)
    assert [change.number for change in page.take()] == [1, 2]
    assert len(list(other.take())) == 2


async def test_of_each_task_only_the_newest_is_sent() -> None:
    """What a task was in between is left out; the order is that of the newest changes."""
    feed = ChangeFeed()
    page = feed.subscribe()
    first, second = samples.record(), samples.record()
    for record in (first, second, first.evolve()):
        feed.observe(TaskEvent(EventKind.STARTED, record, 0.0))
    taken = page.take()
    assert [(change.number, change.record.task_id) for change in taken] == [(2, second.task_id), (3, first.task_id)]
    assert page.take() == ()


async def test_a_page_resumes_where_it_was() -> None:
    """With Last-Event-ID it gets exactly what it missed."""
    feed = ChangeFeed()
    page = feed.subscribe()
    happen(feed, 3)
    last = feed.event_id(page.take()[0])
    feed.unsubscribe(page)
    happen(feed, 2)
    again = feed.subscribe(last)
    assert [change.number for change in again.take()] == [2, 3, 4, 5]
    assert not again.lagged
    assert not feed.subscribe(feed.position()).lagged


async def test_who_cannot_resume_is_told_to_load_anew() -> None:
    """Ids of another process, forged ones and too old ones end in a resync."""
    feed = ChangeFeed()
    page = feed.subscribe()
    happen(feed, 1)
    first = feed.position()
    happen(feed, KEPT + 5)
    for last in ("0000-1", "x", f"{feed.epoch}-x", f"{feed.epoch}-99999999", f"{feed.epoch}-²", first):
        assert feed.subscribe(last).lagged, last
    assert page.lagged


async def test_a_slow_page_is_bounded() -> None:
    """Its queue is dropped when it is full, and only that page is told."""
    feed = ChangeFeed()
    slow, quick = feed.subscribe(), feed.subscribe()
    for _ in range(PER_CLIENT + 1):
        happen(feed)
        quick.take()
    assert slow.lagged
    assert len(slow.waiting) == 0
    assert not quick.lagged


async def test_what_nobody_can_resume_from_is_forgotten() -> None:
    """Long after the last page went, nothing is kept any more."""
    feed = ChangeFeed()
    feed.unsubscribe(feed.subscribe())
    page = feed.subscribe()
    happen(feed)
    feed.unsubscribe(page)
    happen(feed, KEPT + 2)
    assert not feed._recent


def test_a_delta_is_small() -> None:
    """A delta of the longest names stays within 300 bytes."""
    for name in ("x" * 400, "ä" * 400, "\U0001f600" * 400, "\ud800" * 400):
        record = samples.record(TaskStatus.INTERRUPTED, func_name=name, start_time=1.0, end_time=1e9 / 3)
        text = delta(record)
        assert len(text) <= 300
        assert json.loads(text)["task_id"] == record.task_id


async def collected(parts: fakes.Fakes, cookie: str | None, count: int) -> list[ServerSentEvent]:
    """Return the first ``count`` events of a stream, or all of one that ends before."""
    found: list[ServerSentEvent] = []
    stream = events(parts.parts, sessions_of(parts), cookie, None, anyio.Event())
    async with asyncio.timeout(10):
        async for event in stream:
            found.append(event)
            happen(parts.feed)
            if len(found) == count:
                break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


async def test_stream_says_hello_then_tells_changes() -> None:
    """The first event opens the stream; each change follows with an id, and the subscription ends with it."""
    parts = fakes.build([])
    found = await collected(parts, None, 3)
    assert [event.event for event in found] == ["hello", "task", "task"]
    assert found[2].id == f"{parts.feed.epoch}-2"
    assert parts.feed.clients == 0


async def test_stream_ends_with_the_session() -> None:
    """A session that is no longer valid gets a farewell, then nothing."""
    parts = locked(poll_interval=1.0)
    async with asyncio.timeout(10):
        found = [event.event async for event in events(parts.parts, sessions_of(parts), "forged", None, anyio.Event())]
    assert found == ["hello", "bye"]


async def test_close_ends_every_stream() -> None:
    """At shutdown open streams end, and later ones at once."""
    parts = fakes.build([])
    stream = events(parts.parts, sessions_of(parts), None, None, anyio.Event())
    assert (await anext(stream)).event == "hello"
    parts.feed.close()
    async with asyncio.timeout(5):
        assert [event async for event in stream] == []
        assert [event.event async for event in events(parts.parts, sessions_of(parts), None, None, anyio.Event())] == [
            "hello"
        ]
    parts.feed.open()
    assert not parts.feed.subscribe().closed


async def test_a_stopping_server_lets_the_stream_end() -> None:
    """When the server says that it stops, the stream ends by itself and leaves nothing behind."""
    parts, shutdown = fakes.build([]), anyio.Event()
    stream = events(parts.parts, sessions_of(parts), None, None, shutdown)
    assert (await anext(stream)).event == "hello"
    shutdown.set()
    async with asyncio.timeout(5):
        assert [event async for event in stream] == []
    assert parts.feed.clients == 0
