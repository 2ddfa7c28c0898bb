"""Several hosts on one PostgreSQL database: keys, cancelling, retrying, kills; and how it finds its rows."""

from __future__ import annotations

import asyncio
import contextlib
import random
import string
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager
from fastapi_taskflow.store import Change, Instance, TaskQuery, WriteResult
from fastapi_taskflow.stores import pg_batch, queries
from fastapi_taskflow.stores.postgresql import PostgresqlStore
from fastapi_taskflow.task.record import TaskRecord, TaskStatus, new_task_id
from tests import postgresql
from tests.integration.conftest import Server, eventually, serving, wait_for

pytestmark = pytest.mark.postgres
S = TaskStatus


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A database for this module."""
    with postgresql.database() as made:
        yield made


@pytest.fixture
def url(database: str) -> str:
    """The database without a task in it."""
    return postgresql.emptied(database)


# -- two managers in one process -------------------------------------------------------------------------------------


class Host:
    """One application on the shared database."""

    def __init__(self, url: str) -> None:
        self.ran: list[str] = []
        self.holding: list[str] = []
        self.cancelled: list[str] = []
        self.app = FastAPI()
        manager = TaskManager(snapshot_backend=url, requeue_pending=True)
        TaskAdmin(self.app, manager)

        @manager.task()
        async def charge(order: str) -> None:
            self.ran.append(order)

        @manager.task()
        async def hold(name: str) -> None:
            self.holding.append(name)
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise

        @self.app.post("/pay/{order}")
        async def pay(order: str, tasks: ManagedBackgroundTasks) -> str:
            return tasks.add_task(charge, order, idempotency_key=order)

        @self.app.post("/hold/{name}")
        async def start(name: str) -> str:
            return await manager.enqueue(hold, name)


@contextlib.asynccontextmanager
async def two_hosts(url: str) -> AsyncIterator[tuple[Host, httpx.AsyncClient, Host, httpx.AsyncClient]]:
    """Two applications, each with a client."""
    one, two = Host(url), Host(url)
    async with serving(one.app) as first, serving(two.app) as second:
        yield one, first, two, second


async def test_one_key_runs_once_on_two_hosts(url: str) -> None:
    """Whoever stores it first runs it; the other one's request gets the same id."""
    async with two_hosts(url) as (one, first, two, second):
        answers = await asyncio.gather(
            *(client.post(f"/pay/{order}") for order in range(20) for client in (first, second))
        )
        assert all(answer.status_code == 200 for answer in answers)
        assert all(a.json() == b.json() for a, b in zip(answers[::2], answers[1::2], strict=True))
        for answer in answers[::2]:
            await finished(second, answer.json(), "success")
        assert sorted(one.ran + two.ran) == sorted(map(str, range(20)))


async def finished(client: httpx.AsyncClient, task_id: str, status: str) -> dict[str, Any]:
    """Wait until a task has this status; return its record."""

    async def record() -> dict[str, Any]:
        found: dict[str, Any] = (await client.get(f"/tasks/{task_id}")).json()
        return found

    return dict(await eventually(record, lambda found: found["status"] == status))


async def test_cancelling_reaches_the_other_host_by_a_signal(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without polling: the look by the clock would come after the test has given up."""
    monkeypatch.setattr("fastapi_taskflow.services.inbox.POLL", 600.0)
    async with two_hosts(url) as (one, first, _, second):
        task_id = (await first.post("/hold/a")).json()
        await finished(second, task_id, "running")
        answer = await second.post(f"/tasks/{task_id}/cancel")
        assert answer.status_code < 300, answer.text
        await finished(second, task_id, "cancelled")
        assert one.cancelled == ["a"]


async def test_another_hosts_task_is_retried(url: str) -> None:
    """It runs where it was asked for, as a new task that knows its first one."""
    async with two_hosts(url) as (one, first, two, second):
        task_id = (await first.post("/hold/a")).json()
        await finished(second, task_id, "running")
        assert (await first.post(f"/tasks/{task_id}/cancel")).status_code < 300
        await finished(second, task_id, "cancelled")
        answer = await second.post(f"/tasks/{task_id}/retry")
        assert answer.status_code < 300, answer.text
        again = answer.json()["task_id"]
        await finished(first, again, "running")
        assert (one.holding, two.holding) == (["a"], ["a"])
        assert (await first.post(f"/tasks/{again}/cancel")).status_code < 300
        await finished(second, again, "cancelled")


# -- signals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresqlStore]:
    """An open store, as instance ``me``."""
    made = PostgresqlStore(url)
    await made.open()
    await made.beat(Instance("me", "host", 1, 2, 3.0, 4.0))
    yield made
    await made.close()


async def add(store: PostgresqlStore, number: int = 1, **facts: Any) -> Sequence[TaskRecord]:
    """Store new tasks."""
    records = [
        TaskRecord(new_task_id(), "send", S.PENDING, float(at), owner="me")._replace(**facts) for at in range(number)
    ]
    assert await store.write([Change(record) for record in records]) == WriteResult()
    return records


async def heard(store: PostgresqlStore, url: str, task_id: str) -> bool:
    """Whether ``store`` is woken by a request that another one leaves."""
    other = PostgresqlStore(url)
    await other.open()
    try:
        waiting = asyncio.create_task(store.signalled(1.0))
        await asyncio.sleep(0)
        await other.ask_to_cancel(task_id)
        return await waiting
    finally:
        await other.close()


async def test_only_the_owner_is_woken(store: PostgresqlStore, url: str) -> None:
    """And again after its listening connection was ended."""
    mine, theirs = (await add(store))[0], (await add(store, owner="another"))[0]
    await eventually(partial(heard, store, url, mine.task_id), bool)
    assert await heard(store, url, theirs.task_id) is False
    await asyncio.to_thread(
        postgresql.run,
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%%'",
    )
    await eventually(partial(heard, store, url, mine.task_id), bool)


async def test_signs_of_life_have_the_servers_time(
    store: PostgresqlStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose clock is wrong by a day looks as alive as another one."""
    monkeypatch.setattr("fastapi_taskflow.clock.now", lambda: 86_400.0)
    await store.beat(Instance("me", "host", 1, 2, 3.0, 4.0))
    (row,) = await store.instances()
    (server,) = (await asyncio.to_thread(postgresql.run, url, "SELECT extract(epoch FROM clock_timestamp())"))[0]
    assert 0 <= float(server) - row.heartbeat_at < 60
    assert 0 <= row.age < 60


async def test_many_that_write_the_same_counters_at_once_get_in_nobodys_way(store: PostgresqlStore, url: str) -> None:
    """No deadlocks, and every task counted, whatever the order of functions within a batch."""
    stores = [PostgresqlStore(url) for _ in range(4)]
    for each in stores:
        await each.open()

    async def work(each: PostgresqlStore, which: int) -> None:
        for batch in range(15):
            names = [f"f{number}" for number in range(8)]
            records = [
                TaskRecord(new_task_id(), name, S.PENDING, float(batch), owner=f"i{which}")
                for name in (names if which % 2 else names[::-1])
            ]
            assert await each.write([Change(record) for record in records]) == WriteResult()
            ended = [record.evolve(status=S.SUCCESS, start_time=1.0, end_time=2.0) for record in records]
            changes = [Change(new, old) for new, old in zip(ended, records, strict=True)]
            assert await each.write(changes) == WriteResult()
            await each.prune(before=1e12, limit=3)

    await asyncio.gather(*(work(each, which) for which, each in enumerate(stores)))
    while await store.prune(before=1e12, limit=500):
        pass
    for each in stores:
        await each.close()
    assert await store.stats() == {}
    assert await asyncio.to_thread(postgresql.run, url, "SELECT count(*) FROM taskflow_counters WHERE count <> 0") == [
        (0,)
    ]


async def test_text_that_the_server_does_not_take_may_be_looked_for(store: PostgresqlStore) -> None:
    """It is an input like any other: what was stored spelled out is found, the rest is not."""
    (record,) = await add(store, func_name="a\0b", queue="q\0", error="e\0\ud800")
    for query in (TaskQuery(func_name="a\\u0000b"), TaskQuery(queue="q\0"), TaskQuery(text="E\0")):
        found = (await store.list(query)).records
        assert [each.task_id for each in found] == [record.task_id], query
    for odd in ("\0", "\ud800", "x\0y"):
        assert await store.get(odd) is None
        assert await store.get_meta(odd) is None
        await store.ask_to_cancel(odd)
        for query in (TaskQuery(func_name=odd), TaskQuery(tag=odd), TaskQuery(trace_id=odd), TaskQuery(queue=odd)):
            assert (await store.list(query)).records == (), query


async def test_a_row_that_no_index_can_hold_is_dropped_alone(
    store: PostgresqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A name of thousands of letters would hold up every other task for ever, since its batch is tried again."""
    name = "".join(random.choices(string.ascii_letters, k=9_000))
    odd, plain = (
        TaskRecord(new_task_id(), func_name, S.PENDING, 1.0, owner="me", priority=10**30, max_attempts=10**12)
        for func_name in (name, "send")
    )
    assert (await store.write([Change(odd), Change(plain)])).duplicates == {odd.task_id}
    assert "cannot be stored and is dropped" in caplog.text
    assert [record.func_name for record in (await store.list(TaskQuery())).records] == ["send"]
    assert {name: stats.counts for name, stats in (await store.stats()).items()} == {"send": {S.PENDING: 1}}


# -- a pooler --------------------------------------------------------------------------------------------------------


async def test_without_prepared_statements_everything_works(url: str) -> None:
    """As behind PgBouncer: each batch is a transaction, with limits of its own."""
    store = PostgresqlStore(sa.make_url(url).update_query_dict({"statement_cache_size": "0"}))
    await store.open()
    try:
        await store.beat(Instance("me", "host", 1, 2, 3.0, 4.0))
        (record,) = await add(store)
        late = await store.write([Change(record.evolve(owner="another"), record._replace(owner="another"))])
        assert late.stale == {record.task_id}
        assert await store.get(record.task_id) == record
        assert (await store.stats())["send"].counts == {S.PENDING: 1}
    finally:
        await store.close()


# -- kills -----------------------------------------------------------------------------------------------------------

SOURCE = """
import asyncio, os, pathlib
from fastapi import FastAPI
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager

app = FastAPI()
task_manager = TaskManager(
    snapshot_backend=os.environ["DATABASE"], requeue_pending=True, max_concurrent_tasks=1,
)
TaskAdmin(app, task_manager)
gate = pathlib.Path("gate")


@task_manager.task()
async def write(name: str) -> None:
    with open("ran.txt", "a") as out:
        out.write(name + "\\n")


@task_manager.task(requeue_on_interrupt=True)
async def hold() -> None:
    with open("holding.txt", "a") as out:
        out.write(f"{os.getpid()}\\n")
    while not gate.exists():
        await asyncio.sleep(0.01)


@app.get("/ready")
async def ready() -> int:
    return os.getpid()


@app.post("/hold")
async def start() -> str:
    return await task_manager.enqueue(hold)


@app.post("/write/{name}")
async def add(name: str) -> str:
    return await task_manager.enqueue(write, name)
"""


def post(server: Server, path: str) -> str:
    """Return the id that the server answers with."""
    answer = httpx.post(server.url + path, timeout=20)
    assert answer.status_code == 200, answer.text
    return str(answer.json())


def status(server: Server, task_id: str) -> str:
    """Return a task's status as this server tells it."""
    return str(httpx.get(f"{server.url}/tasks/{task_id}", timeout=20).json()["status"])


@pytest.mark.parametrize("survivor", [True, False])
def test_what_a_killed_server_left_is_done(
    start_server: Callable[..., Server], url: str, tmp_path: Path, *, survivor: bool
) -> None:
    """By another one that lives, or by the next one: what ran runs again, what waited runs once, nothing is lost."""
    server = start_server(SOURCE, DATABASE=url)
    other = start_server(SOURCE, DATABASE=url) if survivor else None
    held = post(server, "/hold")
    holding = tmp_path / "holding.txt"
    wait_for(holding.exists, bool)
    waiting = [post(server, f"/write/{number}") for number in range(20)]
    assert other is None or status(other, held) == "running"
    server.kill()
    (tmp_path / "gate").touch()
    heir = other or start_server(SOURCE, DATABASE=url)
    for task_id in [held, *waiting]:
        wait_for(partial(status, heir, task_id), lambda found: found == "success", within=60)
    assert len(holding.read_text().splitlines()) == 2
    assert sorted((tmp_path / "ran.txt").read_text().splitlines(), key=int) == [str(number) for number in range(20)]


# -- how it finds its rows -------------------------------------------------------------------------------------------

FAILED = frozenset({S.FAILED})
LEGS = [("f0", "failed"), ("f1", "failed"), ("f2", "pending")]
PLANS = {
    "list": queries.page(TaskQuery(), None, None),
    "list, page 2": queries.page(TaskQuery(), None, (5.0, "x")),
    "list since": queries.page(TaskQuery(since=1.0, until=20.0, oldest_first=True), None, None),
    "one leg": queries.page(TaskQuery(statuses=FAILED), LEGS[:1], (5.0, "x")),
    "legs": queries.page(TaskQuery(statuses=FAILED), LEGS, None, merges=False),
    "legs, page 2": queries.page(TaskQuery(statuses=FAILED, oldest_first=True), LEGS, (5.0, "x"), merges=False),
    "ownerless": queries.ownerless("me", {"a", "b"}),
    "prune": queries.prunable(5.0, 10),
    "get": queries.ONE.params(task_id="x"),
    "trace": queries.page(TaskQuery(trace_id="a" * 32), None, None),
}
MANY = """
INSERT INTO taskflow_tasks (task_id, func_name, status, created_at, version, owner, queue, priority, source, executor,
    attempt, max_attempts, ready_at, end_time, requeue_on_interrupt, recoveries, trace_id)
SELECT 'task-' || n, 'f' || n % 3, CASE WHEN n % 500 = 0 THEN 'pending' WHEN n % 3 = 0 THEN 'failed' ELSE 'success' END,
    n, 1, 'me', 'default', 0, 'request', 'async', 1, 1, n, CASE WHEN n % 500 = 0 THEN NULL ELSE n END, false, 0,
    md5(n::text)
FROM generate_series(1, 20000) AS n
"""


@pytest.fixture(scope="module")
def filled() -> Iterator[str]:
    """A database with a history, whose statistics are known."""

    async def make(url: str) -> None:
        store = PostgresqlStore(url)
        await store.open()
        await store.close()

    with postgresql.database() as url:
        asyncio.run(make(url))
        postgresql.run(url, MANY, "ANALYZE")
        yield url


@pytest.fixture
async def engine(filled: str) -> AsyncIterator[AsyncEngine]:
    """Connections to it."""
    made = create_async_engine(filled, poolclass=NullPool)
    yield made
    await made.dispose()


@pytest.mark.parametrize("name", PLANS)
async def test_statement_walks_an_index_in_order(engine: AsyncEngine, name: str) -> None:
    """No statement reads the table from end to end; none but that for a trace sorts what it found."""
    text = PLANS[name].compile(engine.sync_engine, compile_kwargs={"literal_binds": True})
    async with engine.connect() as connection:
        steps = (await connection.exec_driver_sql(f"EXPLAIN {text}")).scalars().all()
    assert any("ix_taskflow" in step or "taskflow_tasks_pkey" in step for step in steps), steps
    assert not any("Seq Scan on taskflow_tasks" in step for step in steps), steps
    assert name == "trace" or not any("Sort " in step for step in steps if "Sort Key" not in step), steps


async def test_a_batch_finds_its_rows_by_key_while_the_tables_are_new(store: PostgresqlStore) -> None:
    """A plan made now stays for as long as the connection; the tables will not stay small."""
    (record,) = await add(store)
    statement, parameters = pg_batch.whole([Change(record.evolve(status=S.RUNNING), record)])
    driver = await store._connections.batches.driver()
    steps = [row[0] for row in await driver.fetch(f"EXPLAIN {statement}", *parameters)]
    assert any("taskflow_tasks_pkey" in step for step in steps), steps
    assert not any("Seq Scan on taskflow_tasks" in step for step in steps), steps
