"""What a carrier writes into the user's transaction, on each database, without a manager."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from fastapi_taskflow.store import Carrier, Ride
from fastapi_taskflow.stores.joining import carrier_of
from fastapi_taskflow.stores.rows import COLUMNS, record_from
from fastapi_taskflow.stores.schema import counters, metadata, tasks
from fastapi_taskflow.task.record import TaskRecord, TaskStatus, new_task_id


class Passenger:
    """A task without anything that would run it."""

    def __init__(self, name: str = "send", **facts: Any) -> None:
        self.record = TaskRecord(
            facts.pop("task_id", new_task_id()), name, TaskStatus.PENDING, 1.0, ready_at=1.0,
            requeue_on_interrupt=True, tags=("a", "b"), idempotency_key=facts.pop("key", None), **facts,
        )  # fmt: skip


class Book:
    """Takes down what was committed."""

    def __init__(self) -> None:
        self.committed: list[Ride] = []
        self.under_way: Callable[[], bool] = lambda: False

    def __call__(self, rides: Sequence[Ride], under_way: Callable[[], bool]) -> None:
        """Be told of a commit."""
        self.committed += rides
        self.under_way = under_way


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database with the package's tables."""
    made = create_async_engine(url)
    async with made.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield made
    await made.dispose()


def carrier(session: AsyncSession | AsyncConnection, book: Book) -> Carrier:
    """Return the carrier of a session or connection on its own database."""
    return carrier_of(
        session, session.get_bind().engine.url if isinstance(session, AsyncSession) else session.engine.url, book
    )


async def held(engine: AsyncEngine) -> dict[str, TaskRecord]:
    """Return the committed tasks, by id; the counters must agree with them."""
    async with engine.connect() as connection:
        rows = (await connection.execute(sa.select(*(tasks.c[name] for name in COLUMNS)))).all()
        counted = {(row.func_name, row.status): row.count for row in await connection.execute(sa.select(counters))}
    records = [record_from(row) for row in rows]
    assert counted == Counter((record.func_name, record.status.value) for record in records)
    return {record.task_id: record for record in records}


@pytest.mark.parametrize("by", ["session", "connection"])
async def test_the_row_holds_the_whole_record(engine: AsyncEngine, by: str) -> None:
    """It comes back equal, whichever way it went in, with the time of the commit; it is counted once."""
    book = Book()
    riders = [Passenger(), Passenger("other"), Passenger(key="k")]
    async with AsyncSession(engine) as session, engine.connect() as connection:
        chosen = session if by == "session" else connection
        for rider in riders:
            assert await carrier(chosen, book).insert(rider)
        assert book.committed == []
        await chosen.commit()
    assert not book.under_way()
    assert book.committed == riders
    assert await held(engine) == {rider.record.task_id: rider.record for rider in riders}
    assert all(rider.record.created_at == rider.record.ready_at > 1.0 for rider in riders)


async def test_rows_that_come_with_the_commit(engine: AsyncEngine) -> None:
    """Beside some that are there already, and with a key that is taken."""
    book = Book()
    early, taken, late = Passenger(), Passenger(key="k", task_id="t"), [Passenger("late") for _ in range(3)]
    async with AsyncSession(engine) as session:
        assert await carrier(session, book).insert(taken)
        await session.commit()
        assert await carrier(session, book).insert(early)
        for rider in (*late, Passenger(key="k", task_id="t")):
            carrier(session, book).insert_at_commit(rider)
        assert not await carrier(session, book).insert(Passenger(key="k", task_id="t"))
        await session.commit()
    assert book.committed == [taken, early, *late]
    assert (await held(engine)).keys() == {rider.record.task_id for rider in [taken, early, *late]}


async def test_text_that_a_database_refuses_does_not_cost_the_transaction(engine: AsyncEngine) -> None:
    """Such as a lone surrogate in an argument."""
    book = Book()
    async with AsyncSession(engine) as session:
        carrier(session, book).insert_at_commit(Passenger(payload="\udc80", target="a:b"))
        await session.commit()
    (record,) = (await held(engine)).values()
    assert record.payload == "\\udc80"


async def test_savepoints(engine: AsyncEngine) -> None:
    """Of sessions; what is rolled back is neither there nor told."""
    book = Book()
    kept = [Passenger(), Passenger()]
    async with AsyncSession(engine) as session, session.begin():
        await carrier(session, book).insert(kept[0])
        async with session.begin_nested() as savepoint:
            await carrier(session, book).insert(Passenger())
            carrier(session, book).insert_at_commit(Passenger())
            await savepoint.rollback()
        async with session.begin_nested():
            carrier(session, book).insert_at_commit(kept[1])
    assert book.committed == kept
    assert (await held(engine)).keys() == {rider.record.task_id for rider in kept}


on_a_server = pytest.mark.parametrize("url", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True)
"""SQLite lets one transaction write at a time."""


@on_a_server
async def test_an_open_transaction_keeps_nobody_from_the_counters(engine: AsyncEngine) -> None:
    """They change just before the commit, so that two transactions with tasks of one function go on."""
    book = Book()
    async with AsyncSession(engine) as slow, AsyncSession(engine) as quick:
        await carrier(slow, book).insert(Passenger())
        await carrier(quick, book).insert(Passenger())
        async with asyncio.timeout(15):
            await quick.commit()
            await slow.commit()
    assert len(await held(engine)) == 2


@on_a_server
async def test_a_key_waits_for_the_transaction_that_has_it(engine: AsyncEngine) -> None:
    """It is free if that is rolled back, and taken if that is committed."""
    book = Book()
    for commits in (False, True):
        async with AsyncSession(engine) as first, AsyncSession(engine) as second:
            assert await carrier(first, book).insert(Passenger(key=str(commits), task_id=str(commits)))
            waiting = asyncio.create_task(
                carrier(second, book).insert(Passenger(key=str(commits), task_id=str(commits)))
            )
            await lock_awaited(engine)
            await (first.commit() if commits else first.rollback())
            assert await waiting is not commits
            await second.commit()
    assert (await held(engine)).keys() == {"False", "True"}
    assert len(book.committed) == 2


async def lock_awaited(engine: AsyncEngine) -> None:
    """Wait until somebody waits for a lock in this database."""
    waits = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(15), engine.connect() as connection:
        while not (await connection.execute(waits)).scalar():
            await connection.rollback()
            await asyncio.sleep(0.01)
