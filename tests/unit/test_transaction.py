"""What becomes of a committed task when something around it is not as usual."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.engines.local import LocalEngine
from fastapi_taskflow.errors import StoreUnavailableError
from fastapi_taskflow.expiry import Expiry
from fastapi_taskflow.journal import Journal
from fastapi_taskflow.kept_calls import KeptCalls
from fastapi_taskflow.task.queue import QueueConfig
from fastapi_taskflow.transaction import CarriedTask, Transactions
from tests.unit.fakes import RecordingObserver, RecordingStore, make_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.store import Carrier, OnCommit, Ride
    from fastapi_taskflow.task.record import TaskRecord


class CarryingStore(RecordingStore):
    """Is its own carrier, and commits when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.rides: list[Ride] = []
        self.row: TaskRecord | StoreUnavailableError | None = None
        self.on_commit: OnCommit | None = None

    def carrier(self, session: object, on_commit: OnCommit) -> Carrier:
        """Be the carrier."""
        self.on_commit = on_commit
        return self

    async def insert(self, ride: Ride) -> bool:
        """Take the task."""
        self.rides.append(ride)
        return True

    def insert_at_commit(self, ride: Ride) -> None:
        """Take the task."""
        self.rides.append(ride)

    def commit(self, under_way: Callable[[], bool] = lambda: False) -> None:
        """Tell of the commit."""
        assert self.on_commit is not None
        self.on_commit(self.rides, under_way)

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return what a test put there."""
        if isinstance(self.row, StoreUnavailableError):
            raise self.row
        return self.row


class Parts:
    """A journal, an engine and what is under test."""

    def __init__(self) -> None:
        self.store = CarryingStore()
        self.observer = RecordingObserver()
        self.journal = Journal(self.store, [self.observer], max_backlog=100)  # type: ignore[arg-type]
        self.engine = LocalEngine(None)
        self.transactions = Transactions(self.journal, self.engine, Expiry(self.journal, KeptCalls()), lambda: "me")
        self.ran: list[str] = []

    async def run(self, entry: Entry) -> None:
        """Stand for an attempt."""
        self.ran.append(entry.record.task_id)

    def add(self, **facts: str) -> CarriedTask:
        """Add a task to the transaction."""
        in_order = "queue" not in facts
        return self.transactions.add(make_entry(**facts), self.transactions.carrier("session"), in_order=in_order)


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    """Started parts."""
    made = Parts()
    made.journal.start()
    made.engine.hold()
    made.engine.start(made.run)
    yield made
    await made.engine.stop(within=5)
    await made.journal.stop(within=5)


async def test_nothing_is_claimed_while_the_commit_is_under_way(parts: Parts) -> None:
    """A connection's event comes before its commit."""
    looks: list[bool] = [True, True, False]
    carried = parts.add()
    parts.store.commit(lambda: looks.pop(0))
    await carried()
    assert looks == []
    assert parts.ran == ["id-1"]
    assert [change.record.owner for change in parts.store.batches[0]] == ["me"]
    parts.journal.tell()
    assert parts.observer.kinds() == ["enqueued"]


async def test_one_that_leaves_the_order_runs_beside_the_others(parts: Parts) -> None:
    """It waits for none of its transaction, and none for it."""
    parts.engine.queues.change("email", QueueConfig(), paused=True)
    carried = [parts.add(task_id="mail", queue="email"), parts.add(task_id="plain")]
    parts.store.commit()
    for each in carried:
        await asyncio.wait_for(each(), 5)
    assert parts.ran == ["plain"]
    parts.engine.queues.change("email", QueueConfig(), paused=False)
    await asyncio.sleep(0)
    assert parts.ran == ["plain", "mail"]


async def test_what_is_not_committed_is_not_waited_for(parts: Parts) -> None:
    """Its place among the request's tasks is passed over."""
    carried = parts.add()
    await asyncio.wait_for(carried(), 5)
    assert parts.ran == []


@pytest.mark.parametrize("why", ["the store does not answer", "there is none", "it is another one's"])
async def test_a_key_that_cannot_be_looked_up_or_is_not_ours_is_left_alone(parts: Parts, why: str) -> None:
    """To run it here with the arguments of another call would be wrong; recovery takes it with its own."""
    carried = parts.add(idempotency_key="k")
    if why == "the store does not answer":
        parts.store.row = StoreUnavailableError(why)
    elif why == "it is another one's":
        parts.store.row = carried.record._replace(created_at=2.0)
    parts.store.commit()
    await carried()
    assert parts.ran == []
    assert parts.store.batches == []
    assert parts.journal.live == {}


async def test_a_key_that_is_ours_is_claimed(parts: Parts) -> None:
    """The row is the one that the transaction wrote."""
    carried = parts.add(idempotency_key="k")
    parts.store.row = carried.record
    parts.store.commit()
    await carried()
    assert parts.ran == ["id-1"]


async def test_the_commit_does_not_fail_for_a_loop_that_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """It may come on another thread, long after the application's end."""
    made: Sequence[Parts] = await asyncio.to_thread(lambda: [_parts_of_a_closed_loop()])
    with caplog.at_level(logging.WARNING):
        made[0].store.commit()
    assert "committed after the manager's end" in caplog.text


def _parts_of_a_closed_loop() -> Parts:
    async def make() -> Parts:
        made = Parts()
        made.journal.start()
        made.add()
        await made.journal.stop(within=1)
        return made

    return asyncio.run(make())
