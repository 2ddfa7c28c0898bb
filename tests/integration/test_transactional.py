"""Tasks that are added within the user's own transaction: its commit starts them, its rollback undoes them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fastapi_taskflow import ConfigurationError, ManagedBackgroundTasks, TaskAdmin, TaskManager, TaskRecord, clock
from fastapi_taskflow.services.recovery import Recovery
from fastapi_taskflow.store import Change, TaskQuery, WriteResult
from fastapi_taskflow.stores.schema import tasks as table
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.record import TaskStatus
from tests.integration.conftest import Server, serving, wait_for


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    name: Mapped[str] = mapped_column(primary_key=True)


def with_transactions(engine: sa.Engine) -> None:
    """Let SQLite's driver begin transactions when SQLAlchemy does, so that savepoints work; see SQLAlchemy's manual."""
    if engine.dialect.name != "sqlite":
        return

    @sa.event.listens_for(engine, "connect")
    def leave_it_to_us(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """The user's own engine, with his table."""
    made = create_async_engine(url)
    with_transactions(made.sync_engine)
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield made
    await made.dispose()


class Watch:
    """Takes down what ran, and what the observers were told."""

    def __init__(self, manager: TaskManager) -> None:
        self.manager = manager
        self.ran: list[str] = []
        self.told: list[tuple[EventKind, str]] = []
        self._news = asyncio.Event()
        manager.add_observer(self)

    def observe(self, event: TaskEvent) -> None:
        """Keep the event."""
        self.told.append((event.kind, event.record.task_id))
        self._news.set()

    async def note(self, name: str) -> None:
        """Be the task."""
        self.ran.append(name)

    async def finished(self, *ids: str) -> None:
        """Wait until these tasks have ended."""
        async with asyncio.timeout(15):
            while not {(EventKind.FINISHED, each) for each in ids} <= set(self.told):
                self._news.clear()
                await self._news.wait()
        await self.manager.journal.flushed()

    async def settled(self) -> None:
        """Wait until what was to begin before has ended: a task that is added now has."""
        await self.finished(await self.manager.enqueue(self.note, "settled"))
        self.ran.remove("settled")

    async def record(self, task_id: str) -> TaskRecord | None:
        """What the store holds."""
        return await self.manager.store.get(task_id)

    async def counted(self) -> dict[str, int]:
        """How many tasks the counters know, by status; they must agree with the rows."""
        await self.manager.journal.flushed()
        counts = {
            status.value: count
            for stats in (await self.manager.store.stats()).values()
            for status, count in stats.counts.items()
        }
        page = await self.manager.store.list(TaskQuery(limit=2_000))
        listed: dict[str, int] = {}
        for record in page.records:
            listed[record.status.value] = listed.get(record.status.value, 0) + 1
        assert counts == listed
        return counts


@pytest.fixture
async def watch(url: str, engine: AsyncEngine) -> AsyncIterator[Watch]:
    """A started manager on the user's database."""
    manager = TaskManager(snapshot_backend=url, requeue_pending=True)
    await manager.startup()
    yield Watch(manager)
    await manager.shutdown()


Add = Callable[..., Any]


@pytest.fixture(params=["enqueue", "add_task"])
def add(request: pytest.FixtureRequest, watch: Watch) -> Add:
    """Either way of adding a task to a session or connection; returns the id."""
    tasks = ManagedBackgroundTasks(watch.manager.dispatcher, {}, held=True)

    async def add_one(name: str, session: AsyncSession, **options: Any) -> str:
        if request.param == "enqueue":
            return await watch.manager.enqueue(watch.note, name, session=session, **options)
        return tasks.add_task(watch.note, name, session=session, **options)

    return add_one


async def orders(engine: AsyncEngine) -> list[str]:
    """The committed business data."""
    async with AsyncSession(engine) as session:
        return list(await session.scalars(sa.select(Order.name).order_by(Order.name)))


# -- sessions --------------------------------------------------------------------------------------------------------


async def test_the_commit_starts_the_task(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """Before it nobody sees the row and no observer is told; after it the task runs at once."""
    async with AsyncSession(engine) as session:
        session.add(Order(name="book"))
        task_id = await add("book", session)
        assert await watch.record(task_id) is None
        assert watch.told == []
        await session.commit()
    await watch.finished(task_id)
    assert watch.ran == ["book"]
    assert await orders(engine) == ["book"]
    record = await watch.record(task_id)
    assert record is not None
    assert (record.status, record.owner, record.attempt) == (TaskStatus.SUCCESS, watch.manager.dispatcher.owner, 1)
    kinds = [kind for kind, told_id in watch.told if told_id == task_id]
    assert kinds == [EventKind.ENQUEUED, EventKind.STARTED, EventKind.FINISHED]
    assert await watch.counted() == {"success": 1}


@pytest.mark.parametrize("end", ["rollback", "close", "exception"])
async def test_the_rollback_undoes_the_task(watch: Watch, engine: AsyncEngine, add: Add, end: str) -> None:
    """However the transaction ends without a commit, there never was a task; the session goes on with the next one."""
    session = AsyncSession(engine)
    with contextlib.suppress(LookupError):
        async with session.begin():
            session.add(Order(name="book"))
            await session.flush()
            undone = await add("undone", session)
            if end == "rollback":
                await session.rollback()
            elif end == "close":
                await session.close()
            else:
                raise LookupError
    await watch.settled()
    assert await watch.record(undone) is None
    assert watch.ran == []
    assert EventKind.ENQUEUED not in [kind for kind, task_id in watch.told if task_id == undone]
    done = await add("done", session)
    await session.commit()
    await session.close()
    await watch.finished(done)
    assert watch.ran == ["done"]
    assert await orders(engine) == []
    assert await watch.counted() == {"success": 2}


async def test_a_savepoint_decides_on_what_is_within(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """Rolled back: undone. Released: as much part of the transaction as what is around it. In any depth."""
    async with AsyncSession(engine) as session, session.begin():
        ids = [await add("outer", session)]
        async with session.begin_nested():
            ids.append(await add("released", session))
            async with session.begin_nested() as inner:
                lost = await add("rolled back", session)
                await inner.rollback()
            async with session.begin_nested():
                ids.append(await add("deep", session))
        with contextlib.suppress(LookupError):
            async with session.begin_nested():
                async with session.begin_nested():
                    await add("released within what is rolled back", session)
                raise LookupError
        ids.append(await add("last", session))
    await watch.finished(*ids)
    await watch.settled()
    assert sorted(watch.ran) == ["deep", "last", "outer", "released"]
    assert await watch.record(lost) is None
    assert await watch.counted() == {"success": 5}


async def test_a_savepoint_that_is_open_at_the_commit_is_committed(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """SQLAlchemy releases it then, which looks the same as the release of one savepoint."""
    async with AsyncSession(engine) as session, session.begin():
        first = await add("outer", session)
        savepoint = await session.begin_nested()
        second = await add("inner", session)
        assert savepoint.is_active
    await watch.finished(first, second)
    assert sorted(watch.ran) == ["inner", "outer"]
    assert await watch.counted() == {"success": 2}


async def test_a_savepoint_whose_flush_fails_does_not_take_the_task_around_it_along(
    watch: Watch, engine: AsyncEngine, add: Add
) -> None:
    """A common pattern: try to insert, and go on if the row is there."""
    async with AsyncSession(engine) as session, session.begin():
        session.add(Order(name="book"))
        task_id = await add("outer", session)
        with contextlib.suppress(sa.exc.IntegrityError):
            async with session.begin_nested():
                await session.execute(sa.insert(Order).values(name="pen"))
                await session.execute(sa.insert(Order).values(name="book"))
    await watch.finished(task_id)
    assert watch.ran == ["outer"]
    assert await orders(engine) == ["book"]


async def test_a_task_added_while_the_commit_flushes_is_part_of_it(watch: Watch, engine: AsyncEngine) -> None:
    """As from an ORM event that sees each new object."""
    tasks = ManagedBackgroundTasks(watch.manager.dispatcher, {}, held=True)
    ids = []
    async with AsyncSession(engine) as session:

        def saw(_: object, __: object, order: Order) -> None:
            ids.append(tasks.add_task(watch.note, order.name, session=session))

        sa.event.listen(Order, "after_insert", saw)
        try:
            session.add(Order(name="book"))
            await session.commit()
        finally:
            sa.event.remove(Order, "after_insert", saw)
    await watch.finished(*ids)
    assert watch.ran == ["book"]
    assert await watch.counted() == {"success": 1}


async def test_tasks_of_one_transaction_run_in_order(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """With many of them, and some with keys."""
    async with AsyncSession(engine) as session, session.begin():
        ids = [
            await add(str(number), session, idempotency_key=str(number) if number % 3 == 0 else None)
            for number in range(30)
        ]
    await watch.finished(*ids)
    assert watch.ran == [str(number) for number in range(30)]
    assert await watch.counted() == {"success": 30}


async def test_more_tasks_than_a_statement_may_name(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """A transaction has no limit of its own."""
    async with AsyncSession(engine) as session, session.begin():
        ids = [await add(str(number), session) for number in range(1_100)]
    await watch.finished(*ids)
    assert await watch.counted() == {"success": 1_100}


async def test_the_task_is_as_old_as_the_commit(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """Other instances leave a young task to the one that added it, however long the transaction took."""
    async with AsyncSession(engine) as session:
        task_id = await add("book", session)
        committed_at = clock.now()
        await session.commit()
    await watch.finished(task_id)
    record = await watch.record(task_id)
    assert record is not None
    assert record.start_time is not None
    assert committed_at <= record.created_at <= record.ready_at <= record.start_time


async def test_a_taken_key_returns_the_first_id_and_runs_nothing(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """Whether the first one is ordinary, in an earlier transaction or in the same one."""
    ordinary = await watch.manager.enqueue(watch.note, "ordinary", idempotency_key="a")
    await watch.finished(ordinary)
    async with AsyncSession(engine) as session:
        session.add(Order(name="book"))
        assert await add("second", session, idempotency_key="a") == ordinary
        first = await add("first", session, idempotency_key="b")
        assert await add("again", session, idempotency_key="b") == first
        await session.commit()
        await watch.finished(first)
        assert await add("later", session, idempotency_key="b") == first
        await session.commit()
    assert await watch.manager.enqueue(watch.note, "ordinary again", idempotency_key="b") == first
    await watch.settled()
    assert watch.ran == ["ordinary", "first"]
    assert await orders(engine) == ["book"]
    assert await watch.counted() == {"success": 3}


async def test_a_key_is_free_again_after_a_rollback(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """Also within one transaction, after its savepoint: the second one runs, with its own arguments."""
    async with AsyncSession(engine) as session:
        await add("undone", session, idempotency_key="a")
        await session.rollback()
        async with session.begin():
            async with session.begin_nested() as savepoint:
                await add("undone too", session, idempotency_key="a")
                await savepoint.rollback()
            task_id = await add("done", session, idempotency_key="a")
    await watch.finished(task_id)
    await watch.settled()
    assert watch.ran == ["done"]


async def test_a_session_within_a_transaction_of_its_connection(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """As test suites do it: the session's commit is none, the connection's is."""
    async with engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(connection) as session:
            first = await add("undone", session)
            await session.commit()
        await transaction.rollback()
    async with engine.connect() as connection:
        transaction = await connection.begin()
        mode: Any = "create_savepoint"
        async with AsyncSession(connection, join_transaction_mode=mode) as session:
            second = await add("done", session)
            await session.commit()
            await add("undone", session)
            await session.rollback()
            savepoint = await session.begin_nested()
            assert savepoint.is_active
            third = await add("done", session)
            await session.commit()
        assert watch.told == []
        await transaction.commit()
    await watch.finished(second, third)
    await watch.settled()
    assert watch.ran == ["done", "done"]
    assert await watch.record(first) is None
    assert await watch.counted() == {"success": 3}


# -- connections -----------------------------------------------------------------------------------------------------


async def test_a_connection_carries_tasks_too(watch: Watch, engine: AsyncEngine) -> None:
    """Several transactions of one connection; each decides for itself."""
    enqueue = watch.manager.enqueue
    async with engine.connect() as connection:
        async with connection.begin():
            await connection.execute(sa.insert(Order).values(name="book"))
            first = await enqueue(watch.note, "first", session=connection)
            assert await watch.record(first) is None
        async with connection.begin() as transaction:
            await enqueue(watch.note, "undone", session=connection)
            await transaction.rollback()
        second = await enqueue(watch.note, "second", session=connection)
        await connection.execute(sa.insert(Order).values(name="pen"))
        await connection.commit()
        lost = await enqueue(watch.note, "closed", session=connection)
    await watch.finished(first, second)
    await watch.settled()
    assert watch.ran == ["first", "second"]
    assert await watch.record(lost) is None
    assert await orders(engine) == ["book", "pen"]
    assert await watch.counted() == {"success": 3}


async def test_savepoints_of_a_connection(watch: Watch, engine: AsyncEngine) -> None:
    """What one undid is not there; what it released is, also under a key that was undone before."""
    enqueue = watch.manager.enqueue
    async with engine.begin() as connection:
        old = await connection.begin_nested()
        await enqueue(watch.note, "in the old one", session=connection, idempotency_key="a")
        inner = await connection.begin_nested()
        await enqueue(watch.note, "released within it", session=connection)
        await inner.commit()
        await old.rollback()
        first = await enqueue(watch.note, "outer", session=connection, idempotency_key="a")
        async with connection.begin_nested():
            second = await enqueue(watch.note, "released", session=connection)
            async with connection.begin_nested() as inner:
                await enqueue(watch.note, "rolled back", session=connection)
                await inner.rollback()
    await watch.finished(first, second)
    await watch.settled()
    assert sorted(watch.ran) == ["outer", "released"]
    assert await watch.counted() == {"success": 3}


async def test_add_task_refuses_a_connection(watch: Watch, engine: AsyncEngine) -> None:
    """And says what to use; nothing was added."""
    tasks = ManagedBackgroundTasks(watch.manager.dispatcher, {}, held=True)
    async with engine.begin() as connection:
        with pytest.raises(ConfigurationError, match=r"await task_manager\.enqueue\("):
            tasks.add_task(watch.note, "never", session=connection)
    await watch.settled()
    assert watch.ran == []
    assert tasks.tasks == []


# -- what is refused -------------------------------------------------------------------------------------------------


async def test_another_database_is_refused(watch: Watch, tmp_path: Path, add: Add) -> None:
    """The message names both and no password; nothing was added."""
    elsewhere = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    async with AsyncSession(elsewhere) as session:
        with pytest.raises(ConfigurationError, match=r"bound to .*other\.db.*kept in ") as refusal:
            await add("never", session)
    server = create_async_engine("postgresql+asyncpg://ada:secret@db.example:5433/shop")
    async with AsyncSession(server) as session:
        with pytest.raises(ConfigurationError, match=r"db\.example:5433/shop") as refusal:
            await add("never", session)
    assert "secret" not in str(refusal.value)
    async with AsyncSession() as session:
        with pytest.raises(ConfigurationError, match="has no database"):
            await add("never", session)
    await elsewhere.dispose()
    await server.dispose()
    await watch.settled()
    assert watch.ran == []


async def test_other_types_are_refused_by_name(watch: Watch, engine: AsyncEngine, add: Add) -> None:
    """So is a connection that is not open, and a commit in two phases, which nobody could follow."""
    wrong: Any = engine
    async with AsyncSession(engine, twophase=True) as session:
        with pytest.raises(ConfigurationError, match="twophase=True"):
            await add("never", session)
    with pytest.raises(ConfigurationError, match=r"AsyncSession, AsyncConnection or Session .* not AsyncEngine"):
        await add("never", wrong)
    with pytest.raises(ConfigurationError, match="not open"):
        await add("never", engine.connect())


async def test_a_store_in_memory_is_refused(engine: AsyncEngine) -> None:
    """It has no transaction to be part of."""
    manager = TaskManager()
    await manager.startup()
    async with AsyncSession(engine) as session:
        with pytest.raises(ConfigurationError, match="MemoryStore"):
            await manager.enqueue(print, session=session)
    await manager.shutdown()


# -- the manager's end -----------------------------------------------------------------------------------------------


async def test_a_commit_after_the_end_of_the_manager_is_left_for_the_next_start(
    url: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The user's commit does not fail, and the task is stored."""
    manager = TaskManager(snapshot_backend=url)
    await manager.startup()
    async with AsyncSession(engine) as session:
        session.add(Order(name="book"))
        tasks = ManagedBackgroundTasks(manager.dispatcher, {}, held=True)
        task_id = tasks.add_task(print, "book", session=session)
        await manager.shutdown()
        with caplog.at_level(logging.WARNING):
            await session.commit()
            await tasks.finish()
    assert await orders(engine) == ["book"]
    await manager.store.open()
    record = await manager.store.get(task_id)
    await manager.store.close()
    assert record is not None
    assert (record.status, record.owner) == (TaskStatus.PENDING, "")
    assert "after the manager's end" in caplog.text


async def test_a_task_that_another_instance_took_first_does_not_run_here(
    watch: Watch, engine: AsyncEngine, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is first has it; here it was never accepted, so that nothing is told of it."""
    write = watch.manager.store.write

    async def write_second(changes: Sequence[Change]) -> WriteResult:
        async with engine.begin() as connection:
            taken = {"owner": "other", "version": table.c.version + 1}
            await connection.execute(sa.update(table).where(table.c.owner == "").values(taken))
        return await write(changes)

    monkeypatch.setattr(watch.manager.store, "write", write_second)
    async with AsyncSession(engine) as session:
        task_id = await add("book", session)
        await session.commit()
    await watch.settled()
    assert watch.ran == []
    assert (EventKind.ENQUEUED, task_id) not in watch.told
    record = await watch.record(task_id)
    assert record is not None
    assert (record.owner, record.status) == ("other", TaskStatus.PENDING)


async def test_each_task_of_two_instances_runs_once(watch: Watch, engine: AsyncEngine, url: str) -> None:
    """Each has its own transactions, at the same time, with some keys in common."""
    other = TaskManager(snapshot_backend=url, requeue_pending=True)
    await other.startup()
    others = Watch(other)

    async def work(each: Watch) -> list[str]:
        ids = []
        for number in range(20):
            async with AsyncSession(engine) as session, session.begin():
                key = f"key {number}" if number % 4 == 0 else None
                ids.append(await each.manager.enqueue(each.note, str(number), session=session, idempotency_key=key))
        return ids

    ids = {task_id for some in await asyncio.gather(work(watch), work(others)) for task_id in some}
    assert len(ids) == 20 + 15
    async with asyncio.timeout(15):
        while len(watch.ran) + len(others.ran) < len(ids):  # noqa: ASYNC110 - two watches, either may be last
            await asyncio.sleep(0.01)
    await others.settled()
    await watch.settled()
    await other.shutdown()
    ran = [number for each in (watch, others) for number in each.ran]
    assert sorted(ran) == sorted(str(number) for number in range(20) for _ in range(1 if number % 4 == 0 else 2))
    assert await watch.counted() == {"success": len(ids) + 2}


async def test_the_recovery_of_the_same_instance_does_not_run_it_once_more(
    watch: Watch, engine: AsyncEngine, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be first, if the store was out of reach after the commit for longer than the grace."""
    store, claimed = watch.manager.store, asyncio.Event()
    write, claim = store.write, store.claim
    recovery = next(each for each in watch.manager._runtime._services if isinstance(each, Recovery))
    sweeps: list[asyncio.Task[int]] = []

    async def claim_and_tell(owner: str, dead: Mapping[str, float], *, limit: int) -> Sequence[TaskRecord]:
        found = await claim(owner, dead, limit=limit)
        if found:
            claimed.set()
        return found

    async def write_second(changes: Sequence[Change]) -> WriteResult:
        if not sweeps:
            async with engine.begin() as connection:
                await connection.execute(sa.update(table).where(table.c.owner == "").values(created_at=1.0))
            recovery._look_at = 0.0  # as when somebody has died
            sweeps.append(asyncio.create_task(recovery.sweep()))
            await claimed.wait()
        return await write(changes)

    monkeypatch.setattr(store, "write", write_second)
    monkeypatch.setattr(store, "claim", claim_and_tell)
    async with AsyncSession(engine) as session:
        task_id = await add("book", session)
        await session.commit()
    await watch.finished(task_id)
    await sweeps[0]
    await watch.settled()
    assert watch.ran == ["book"]
    assert (EventKind.RECOVERED, task_id) not in watch.told
    assert await watch.counted() == {"success": 2}


async def test_the_same_key_by_both_ways_at_once_runs_once(
    watch: Watch, engine: AsyncEngine, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary task is on its way into the store while the transaction commits: the store decides."""
    store, began, looked = watch.manager.store, asyncio.Event(), asyncio.Event()
    write, get = store.write, store.get

    async def write_later(changes: Sequence[Change]) -> WriteResult:
        began.set()
        await looked.wait()
        return await write(changes)

    async def get_first(task_id: str) -> TaskRecord | None:
        found = await get(task_id)
        looked.set()
        return found

    async with AsyncSession(engine) as session:
        task_id = await add("in the transaction", session, idempotency_key="a")
        monkeypatch.setattr(store, "write", write_later)
        monkeypatch.setattr(store, "get", get_first)
        ordinary = asyncio.create_task(watch.manager.enqueue(watch.note, "ordinary", idempotency_key="a"))
        await began.wait()
        await session.commit()
    assert await ordinary == task_id
    await watch.finished(task_id)
    await watch.settled()
    assert watch.ran == ["in the transaction"]
    assert await watch.counted() == {"success": 2}


# -- in routes -------------------------------------------------------------------------------------------------------


def make_app(manager: TaskManager, engine: AsyncEngine, url: str, ran: list[str]) -> FastAPI:
    """Return an app whose routes add tasks in their transactions, in each usual way."""
    app = FastAPI()
    TaskAdmin(app, manager)
    sync_engine = sa.create_engine(url.replace("+aiosqlite", ""))
    with_transactions(sync_engine)

    async def session_of() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    async def committed_after_the_response() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session
            ran.append("exit")
            await session.commit()

    def sync_session() -> Iterator[Session]:
        with Session(sync_engine) as session:
            yield session
        sync_engine.dispose()

    ours = Annotated[AsyncSession, Depends(session_of)]

    @app.post("/commit")
    async def commit(tasks: ManagedBackgroundTasks, session: ours) -> list[str]:
        session.add(Order(name="book"))
        ids = [tasks.add_task(ran.append, "in the transaction", session=session)]
        await session.commit()
        ids.append(tasks.add_task(ran.append, "ordinary"))
        return ids

    @app.post("/mixed")
    async def mixed(tasks: ManagedBackgroundTasks, session: ours) -> None:
        session.add(Order(name="pen"))
        await session.flush()
        tasks.add_task(ran.append, "ordinary", tags=["mixed"])
        tasks.add_task(ran.append, "in the transaction", session=session)
        await session.commit()

    @app.post("/raise")
    async def fail(tasks: ManagedBackgroundTasks, session: ours) -> None:
        session.add(Order(name="never"))
        tasks.add_task(ran.append, "never", session=session)
        raise HTTPException(409, "no")

    @app.post("/raise-after-commit")
    async def fail_late(tasks: ManagedBackgroundTasks, session: ours) -> None:
        tasks.add_task(ran.append, "committed", session=session)
        tasks.add_task(ran.append, "dropped")
        await session.commit()
        raise HTTPException(409, "no")

    @app.post("/late")
    async def late(
        tasks: ManagedBackgroundTasks, session: Annotated[AsyncSession, Depends(committed_after_the_response)]
    ) -> None:
        session.add(Order(name="late"))
        tasks.add_task(ran.append, "in the transaction", session=session)
        tasks.add_task(ran.append, "ordinary")

    @app.post("/sync")
    def in_a_thread(tasks: ManagedBackgroundTasks, session: Annotated[Session, Depends(sync_session)]) -> None:
        session.add(Order(name="sync"))
        tasks.add_task(ran.append, "in the transaction", session=session)
        session.commit()
        tasks.add_task(ran.append, "undone", session=session)
        session.rollback()

    return app


@pytest.fixture
async def ran() -> list[str]:
    """What ran, in order."""
    return []


@pytest.fixture
async def client(url: str, engine: AsyncEngine, ran: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app."""
    async with serving(make_app(TaskManager(snapshot_backend=url), engine, url, ran)) as made:
        yield made


async def statuses(client: httpx.AsyncClient) -> dict[str, int]:
    """How many tasks the app has, by status."""
    found: dict[str, int] = {}
    for record in (await client.get("/tasks")).json():
        found[record["status"]] = found.get(record["status"], 0) + 1
    return found


async def test_a_route_commits(client: httpx.AsyncClient, engine: AsyncEngine, ran: list[str]) -> None:
    """When the call returns both tasks have run, that of the transaction first: it did not wait for the response."""
    answer = await client.post("/commit")
    assert answer.status_code == 200
    assert ran == ["in the transaction", "ordinary"]
    for task_id in answer.json():
        record = (await client.get(f"/tasks/{task_id}")).json()
        assert (record["status"], record["source"]) == ("success", "request")
    assert await orders(engine) == ["book"]


async def test_an_ordinary_task_beside_it(client: httpx.AsyncClient, engine: AsyncEngine, ran: list[str]) -> None:
    """Added while the transaction holds the database's write lock: it is stored after the commit."""
    assert (await client.post("/mixed")).status_code == 200
    assert sorted(ran) == ["in the transaction", "ordinary"]
    assert await statuses(client) == {"success": 2}
    assert await orders(engine) == ["pen"]


async def test_a_route_that_raises_drops_it_with_its_transaction(
    client: httpx.AsyncClient, engine: AsyncEngine, ran: list[str]
) -> None:
    """The dependency closes the session without a commit."""
    assert (await client.post("/raise")).status_code == 409
    assert (await client.post("/commit")).status_code == 200
    assert ran == ["in the transaction", "ordinary"]
    assert await statuses(client) == {"success": 2}
    assert await orders(engine) == ["book"]


async def test_what_is_committed_runs_though_the_route_raises_later(client: httpx.AsyncClient, ran: list[str]) -> None:
    """The transaction decides, not the response. An ordinary task of the same request is dropped as ever."""
    assert (await client.post("/raise-after-commit")).status_code == 409
    assert ran == ["committed"]
    assert await statuses(client) == {"success": 1}


async def test_a_session_that_commits_after_the_response(
    client: httpx.AsyncClient, engine: AsyncEngine, ran: list[str]
) -> None:
    """In the exit code of a request-scope dependency: the task begins then, after the request's other tasks."""
    assert (await client.post("/late")).status_code == 200
    assert ran == ["ordinary", "exit", "in the transaction"]
    assert await statuses(client) == {"success": 2}
    assert await orders(engine) == ["late"]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # there is no synchronous driver of PostgreSQL here
async def test_a_route_in_a_thread_with_a_session_of_its_own(
    client: httpx.AsyncClient, engine: AsyncEngine, ran: list[str]
) -> None:
    """A plain ``Session`` commits on that thread; the task begins on the loop."""
    assert (await client.post("/sync")).status_code == 200
    assert ran == ["in the transaction"]
    assert await statuses(client) == {"success": 1}
    assert await orders(engine) == ["sync"]


def test_the_test_client_sees_it_done(tmp_path: Path) -> None:
    """When a call returns, the tasks of its transactions have run, as others have."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"
    engine = create_async_engine(url, poolclass=sa.NullPool)
    with contextlib.closing(sa.create_engine(url.replace("+aiosqlite", ""), poolclass=sa.NullPool).connect()) as db:
        Base.metadata.create_all(db)
        db.commit()
    ran: list[str] = []
    with TestClient(make_app(TaskManager(snapshot_backend=url), engine, url, ran)) as client:
        for path in ("/commit", "/late", "/sync"):
            ran.clear()
            assert client.post(path).status_code == 200
            assert "in the transaction" in ran, path


# -- the death of the process ----------------------------------------------------------------------------------------

SOURCE = """
import os, signal
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager

app = FastAPI()
engine = create_async_engine(os.environ["URL"])
task_manager = TaskManager(snapshot_backend=os.environ["URL"], requeue_pending=True)
TaskAdmin(app, task_manager)


@task_manager.task()
async def write(name: str, numbers: list[int]) -> None:
    with open("ran.txt", "a") as out:
        out.write(f"{name} {sum(numbers)}\\n")


@app.get("/ready")
async def ready() -> None: ...


@app.post("/die/{when}")
async def die(when: str, tasks: ManagedBackgroundTasks) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("CREATE TABLE IF NOT EXISTS orders (name TEXT)"))
        await session.commit()
        await session.execute(text("INSERT INTO orders VALUES (:name)"), {"name": when})
        tasks.add_task(write, when, [1, 2], session=session, tags=[when])
        await task_manager.enqueue(write, when, [3, 4], session=session, tags=[when])
        if when == "after":
            await session.commit()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_dies_right_after_the_commit_loses_nothing(
    start_server: Callable[..., Server], tmp_path: Path, url: str
) -> None:
    """Before this instance could claim the tasks: the next start runs them. Before the commit: there is nothing."""
    for when in ("before", "after"):
        server = start_server(SOURCE, URL=url)
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{server.url}/die/{when}", timeout=10)
        assert server.process.wait(10) == -9
    server = start_server(SOURCE, URL=url)

    def listed() -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = httpx.get(f"{server.url}/tasks", timeout=10).json()
        return answer

    found = wait_for(listed, lambda records: [r["status"] for r in records] == ["success"] * 2)
    assert [record["tags"] for record in found] == [["after"], ["after"]]
    assert sorted((tmp_path / "ran.txt").read_text().splitlines()) == ["after 3", "after 7"]
