"""Observers that are slow, broken or hung, and the pump that feeds them."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.telemetry.logs import InMemoryLogger, LifecycleEvent, LogEvent, ObserverPump, TaskObserver
from tests.unit.telemetry.samples import failure, line, pending, started, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.task.event import TaskEvent


class SyncObserver(TaskObserver):
    """Takes down what it hears, and in which thread."""

    def __init__(self, trouble: Callable[[object], object] | None = None) -> None:
        self.heard: list[str] = []
        self.threads: set[int] = set()
        self._trouble = trouble

    def startup(self) -> None:
        self.heard.append("startup")

    def shutdown(self) -> None:
        self.heard.append("shutdown")

    def on_log(self, event: LogEvent) -> None:
        self.threads.add(threading.get_ident())
        self.heard.append(event.message)
        if self._trouble is not None:
            self._trouble(event)

    def on_lifecycle(self, event: LifecycleEvent) -> None:
        self.heard.append(event.event)


class AsyncObserver(TaskObserver):
    """The same with async methods, and one that is sync."""

    def __init__(self, gate: asyncio.Event | None = None, error: BaseException | None = None) -> None:
        self.heard: list[str] = []
        self.threads: set[int] = set()
        self.sync_threads: set[int] = set()
        self._gate = gate
        self._error = error

    async def startup(self) -> None:
        self.heard.append("startup")

    async def shutdown(self) -> None:
        self.heard.append("shutdown")

    async def on_log(self, event: LogEvent) -> None:
        self.threads.add(threading.get_ident())
        if self._gate is not None:
            await self._gate.wait()
        self.heard.append(event.message)
        if self._error is not None:
            raise self._error

    def on_lifecycle(self, event: LifecycleEvent) -> None:
        self.sync_threads.add(threading.get_ident())
        self.heard.append(event.event)


async def run(observers: list[Any], *events: TaskEvent, capacity: int = 100, within: float = 5.0) -> None:
    """Feed events to observers, from start to stop."""
    pump = ObserverPump(observers, capacity=capacity)
    await pump.start()
    for event in events:
        pump.observe(event)
    await pump.stop(within)


async def test_sync_observers_are_called_in_a_thread_of_their_own() -> None:
    """In order, from startup to shutdown, and never on the loop."""
    observer = SyncObserver()
    await run([observer], told("enqueued", pending()), line("one"), line("two"))
    assert observer.heard == ["startup", "enqueued", "one", "two", "shutdown"]
    assert threading.get_ident() not in observer.threads


async def test_async_observers_are_called_on_the_loop() -> None:
    """Their async methods run on the loop, their sync ones do not hold it up."""
    observer = AsyncObserver()
    await run([observer], line("one"), told("started", started()), line("two"))
    assert observer.heard == ["startup", "one", "started", "two", "shutdown"]
    assert observer.threads == {threading.get_ident()}
    assert threading.get_ident() not in observer.sync_threads


async def test_a_line_from_a_tasks_thread_arrives() -> None:
    """``task_log`` in a sync task is told from that task's thread, to both kinds of observers."""
    observers: list[SyncObserver | AsyncObserver] = [SyncObserver(), AsyncObserver()]
    pump = ObserverPump(observers)
    await pump.start()
    await asyncio.to_thread(pump.observe, line("from a thread"))
    await pump.stop()
    assert [observer.heard for observer in observers] == [["startup", "from a thread", "shutdown"]] * 2


async def test_one_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Its first failure is logged with a traceback and the rest are counted; it goes on, and so do the others."""

    def fail(_: object) -> None:
        raise ValueError("disk full")

    broken, broken_async, healthy = SyncObserver(fail), AsyncObserver(error=ValueError("gone")), InMemoryLogger()
    with caplog.at_level(logging.ERROR, "fastapi_taskflow.observers"):
        await run([broken, broken_async, healthy], *(line(str(number)) for number in range(3)))
    assert broken.heard == ["startup", "0", "1", "2", "shutdown"]
    assert broken_async.heard == ["startup", "0", "1", "2", "shutdown"]
    assert [event.message for event in healthy.logs] == ["0", "1", "2"]
    messages = sorted(record.message for record in caplog.records)
    assert messages == [
        "observer AsyncObserver failed 3 times",
        "observer AsyncObserver failed; further failures are only counted",
        "observer SyncObserver failed 3 times",
        "observer SyncObserver failed; further failures are only counted",
    ]
    assert sum(record.exc_info is not None for record in caplog.records) == 2


async def test_one_that_raises_what_ends_threads_goes_on() -> None:
    """SystemExit in a thread, or a CancelledError that nobody asked for, is a failure like any other."""

    def leave(_: object) -> None:
        raise SystemExit

    sync, on_loop = SyncObserver(leave), AsyncObserver(error=asyncio.CancelledError())
    await run([sync, on_loop], line("one"), line("two"))
    assert sync.heard == ["startup", "one", "two", "shutdown"]
    assert on_loop.heard == ["startup", "one", "two", "shutdown"]


async def test_one_that_hangs_holds_up_neither_the_others_nor_the_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    """The others are served while it hangs; at the shutdown it is given up, and what it never got is told."""
    release = threading.Event()
    stuck = SyncObserver(lambda _: release.wait(10))
    stuck_async = AsyncObserver(gate=asyncio.Event())
    healthy = InMemoryLogger()
    with caplog.at_level(logging.ERROR, "fastapi_taskflow.observers"):
        await run([stuck, stuck_async, healthy], line("one"), line("two"), line("three"), within=0.2)
    assert [event.message for event in healthy.logs] == ["one", "two", "three"]
    assert sorted(record.message for record in caplog.records) == [
        "observer AsyncObserver hung at shutdown; 2 events are lost",
        "observer SyncObserver hung at shutdown; 2 events are lost",
    ]
    release.set()


async def test_one_that_does_not_keep_up_loses_events_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The queue is bounded: memory does not grow, and the number lost is logged."""
    gate = asyncio.Event()
    slow = AsyncObserver(gate=gate)
    pump = ObserverPump([slow], capacity=2)
    await pump.start()
    with caplog.at_level(logging.WARNING, "fastapi_taskflow.observers"):
        for number in range(6):
            pump.observe(line(str(number)))
        assert pump.dropped == 4
        gate.set()
        await pump.stop()
    assert slow.heard == ["startup", "0", "1", "shutdown"]
    assert [record.message for record in caplog.records] == [
        "observer AsyncObserver does not keep up: events for it are dropped",
        "observer AsyncObserver lost 4 events because it did not keep up",
    ]


@pytest.mark.parametrize("kind", [SyncObserver, AsyncObserver])
async def test_one_that_cannot_get_ready_is_left_out(
    kind: type[SyncObserver | AsyncObserver], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If startup() raises, no event follows, no shutdown() either, and nothing piles up."""
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()
    observer = kind()

    def refuse() -> None:
        loop.call_soon_threadsafe(failed.set)
        raise OSError("no such folder")

    monkeypatch.setattr(observer, "startup", refuse)
    pump = ObserverPump([observer], capacity=1)
    await pump.start()
    await failed.wait()
    for _ in range(3):
        pump.observe(line())
    with caplog.at_level(logging.ERROR, "fastapi_taskflow.observers"):
        await pump.stop()
    assert observer.heard == []


async def test_it_can_be_started_again() -> None:
    """A manager may be started, stopped and started."""
    observer = SyncObserver()
    pump = ObserverPump([observer])
    for word in ("one", "two"):
        await pump.start()
        await pump.start()
        pump.observe(line(word))
        await pump.stop()
        await pump.stop()
    assert observer.heard == ["startup", "one", "shutdown", "startup", "two", "shutdown"]


async def test_changes_are_not_queued_for_who_does_not_want_them() -> None:
    """``lifecycle=False`` keeps changes of status away, and so does not overriding a method."""

    class Nobody(TaskObserver):
        pass

    lines_only, nobody = InMemoryLogger(lifecycle=False), Nobody()
    pump = ObserverPump([lines_only, nobody], capacity=1)
    await pump.start()
    for _ in range(3):
        pump.observe(told("started", started()))
    assert pump.dropped == 0
    pump.observe(line())
    await pump.stop()
    assert (len(lines_only.logs), lines_only.lifecycle_events) == (1, [])


def test_without_observers_it_is_not_active() -> None:
    """The manager can leave it out."""
    assert not ObserverPump([]).active
    assert ObserverPump([InMemoryLogger()]).active


def test_what_is_no_observer_is_refused() -> None:
    """A wrong ``loggers=`` is told when the app is built."""
    with pytest.raises(ConfigurationError, match="TaskObserver"):
        ObserverPump([print])  # type: ignore[list-item]


async def test_events_tell_the_facts() -> None:
    """Observers get aware times, and the duration and error of the attempt that ended."""
    memory = InMemoryLogger()
    failed = lifecycle.fail(started(tags=("vip",)), failure(), at=103.0)
    await run([memory], line("hi", level="warning", order=7), told("finished", failed), told("enqueued", pending()))
    (log,) = memory.logs
    assert (log.task_id, log.func_name, log.level, log.message, log.extra, log.attempt) == (
        "id-1",
        "send_email",
        "warning",
        "hi",
        {"order": 7},
        1,
    )
    assert log.timestamp.utcoffset() is not None
    finished, enqueued = memory.lifecycle_events
    assert (finished.event, finished.status, finished.duration) == ("finished", "failed", 1.0)
    assert (finished.error_type, finished.error, finished.tags) == ("ConnectionError", "no route", ("vip",))
    assert (enqueued.event, enqueued.status, enqueued.duration, enqueued.attempt) == ("enqueued", "pending", None, 0)
    assert memory.events == [log, finished, enqueued]
    memory.clear()
    assert memory.events == []


async def test_memory_keeps_the_newest() -> None:
    """``max_entries`` bounds it."""
    memory = InMemoryLogger(max_entries=2)
    await run([memory], line("one"), line("two"), line("three"))
    assert [event.message for event in memory.logs] == ["two", "three"]
    with pytest.raises(ConfigurationError, match="max_entries"):
        InMemoryLogger(max_entries=0)
