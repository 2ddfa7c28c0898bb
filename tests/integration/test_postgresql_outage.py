"""A PostgreSQL server that goes away, is silent, or whose answers get lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sized

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager
from fastapi_taskflow.errors import StoreError, StoreUnavailableError
from fastapi_taskflow.store import Change, Instance, TaskQuery, WriteResult
from fastapi_taskflow.stores.postgresql import PostgresqlStore
from fastapi_taskflow.task.record import TaskRecord, TaskStatus, new_task_id
from tests import postgresql
from tests.integration.conftest import eventually, serving
from tests.proxy import Proxy, between

pytestmark = pytest.mark.postgres
S = TaskStatus
ME = Instance("me", "host", 1, 2, 3.0, 4.0)
IMPATIENT = {"timeout": "1", "command_timeout": "1"}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A database for this module."""
    with postgresql.database() as url:
        yield url


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    """A line to the server."""
    await asyncio.to_thread(postgresql.emptied, database)
    url = sa.make_url(database)
    async with between(url.host or "127.0.0.1", url.port or 5432) as made:
        yield made


@pytest.fixture
def url(database: str, proxy: Proxy) -> str:
    """The database's URL through the line, with little patience."""
    there = sa.make_url(database).set(host="127.0.0.1", port=proxy.port, query=IMPATIENT)
    return there.render_as_string(hide_password=False)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresqlStore]:
    """An open store behind the line."""
    made = PostgresqlStore(url)
    await made.open()
    yield made
    await made.close()


def new(**facts: object) -> TaskRecord:
    """A pending task."""
    return TaskRecord(new_task_id(), "send", S.PENDING, time.time(), owner="me")._replace(**facts)  # type: ignore[arg-type]


async def works_again(store: PostgresqlStore) -> None:
    """Wait until reading, writing and beating are possible once more."""
    record = new()

    async def everything() -> bool:
        try:
            await store.beat(ME)
            await store.write([Change(record)])
            return await store.get(record.task_id) == record
        except StoreUnavailableError:
            return False

    await eventually(everything, bool, within=30.0)


async def test_a_server_that_is_silent_is_unavailable_soon(store: PostgresqlStore, proxy: Proxy) -> None:
    """Nobody waits for ever, and afterwards everything works by itself."""
    record = new()
    await store.write([Change(record)])
    proxy.freeze()
    async with asyncio.timeout(30):
        for attempt in (
            store.get(record.task_id), store.list(TaskQuery()), store.beat(ME), store.claim("me", {}, limit=1),
            store.write([Change(record.evolve(status=S.RUNNING), record)]),
        ):  # fmt: skip
            with pytest.raises(StoreUnavailableError):
                await attempt
        assert await store.signalled(0.01) is False
    proxy.thaw()
    await works_again(store)


async def test_a_store_closes_without_an_answer(store: PostgresqlStore, proxy: Proxy) -> None:
    """A shutdown does not wait for a server that is silent."""
    await works_again(store)
    proxy.freeze()
    async with asyncio.timeout(20):
        await store.close()


async def test_an_instance_that_stands_still_holds_nobody_up(
    database: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a transaction whose process was stopped, here with the counters locked."""
    monkeypatch.setattr("fastapi_taskflow.stores.pg.STALLED_SECONDS", 0.5)
    stalled, other = PostgresqlStore(database), PostgresqlStore(database)
    await stalled.open()
    await other.open()
    try:
        record = new()
        await other.write([Change(record)])
        driver = await stalled._connections.batches.driver()
        async with asyncio.timeout(30):
            await driver.execute("BEGIN")
            await driver.execute("UPDATE taskflow_counters SET count = count + 1")
            assert await other.write([Change(new())]) == WriteResult()
        assert (await other.stats())["send"].counts == {S.PENDING: 2}
        assert await stalled.write([Change(record.evolve(status=S.RUNNING), record)]) == WriteResult()
    finally:
        await stalled.close()
        await other.close()


async def test_a_server_that_is_gone_is_unavailable_at_once(store: PostgresqlStore, proxy: Proxy) -> None:
    """Connections that broke are replaced when the server is back."""
    await works_again(store)
    await proxy.cut()
    for attempt in (store.stats(), store.beat(ME), store.write([Change(new())])):
        with pytest.raises(StoreUnavailableError, match="not available"):
            await attempt
    await proxy.open()
    await works_again(store)


async def test_connections_that_the_server_ends_are_replaced(store: PostgresqlStore, database: str) -> None:
    """As at its restart."""
    await works_again(store)
    await asyncio.to_thread(
        postgresql.run,
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    await works_again(store)


async def test_a_start_without_a_server_says_where_it_should_be(url: str, proxy: Proxy) -> None:
    """And nothing of the password."""
    await proxy.cut()
    store = PostgresqlStore(sa.make_url(url).set(password="swordfish"))
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{proxy.port}") as caught:
        await store.open()
    assert "swordfish" not in str(caught.value)
    await store.close()


async def test_a_database_that_does_not_exist_is_named(database: str) -> None:
    """A wrong URL is an error that does not pass by itself."""
    store = PostgresqlStore(sa.make_url(database).set(database="taskflow_nowhere"))
    with pytest.raises(StoreError, match="taskflow_nowhere") as caught:
        await store.open()
    assert not isinstance(caught.value, StoreUnavailableError)


@pytest.mark.parametrize("silent", [False, True])
async def test_a_commit_whose_answer_got_lost_is_not_done_twice(
    store: PostgresqlStore, proxy: Proxy, database: str, *, silent: bool
) -> None:
    """The server has it, the writer does not know: it writes it again, and all is as if the answer had come."""
    started, fresh, first = new(), new(), new()
    await store.write([Change(started), Change(first)])
    # A statement of the same shape, which is prepared then: its own preparation must not wait for an answer.
    before = first.evolve(status=S.SUCCESS, start_time=1.0, end_time=2.0)
    await store.write([Change(new(status=S.SUCCESS, start_time=1.0, end_time=2.0)), Change(before, first)])
    proxy.swallow_answers = True
    done = started.evolve(status=S.RUNNING).evolve(status=S.SUCCESS, start_time=1.0, end_time=2.0)
    changes = [Change(fresh), Change(done, started)]
    writing = asyncio.create_task(store.write(changes))
    await eventually(lambda: in_database(database, done.task_id), lambda status: status == "success")
    if not silent:
        await proxy.cut()
    with pytest.raises(StoreUnavailableError) as caught:
        await writing
    assert caught.value.uncertain
    proxy.swallow_answers = False
    if not silent:
        await proxy.open()
    newer = fresh.evolve(status=S.RUNNING)

    async def written() -> WriteResult | None:
        try:
            return await store.write([Change(newer), Change(done, started)])
        except StoreUnavailableError:
            return None

    assert await eventually(written, lambda result: result is not None) == WriteResult()
    assert await store.get(done.task_id) == done
    assert await store.get(fresh.task_id) == newer
    stats = (await store.stats())["send"]
    assert stats.counts == {S.SUCCESS: 3, S.RUNNING: 1}
    assert (stats.duration_count, stats.duration_sum) == (3, 3.0)


async def in_database(database: str, task_id: str) -> str | None:
    """The status of a task, seen past the line."""
    rows = await asyncio.to_thread(postgresql.run, database, "SELECT task_id, status FROM taskflow_tasks")
    return {row[0]: str(row[1]) for row in rows}.get(task_id)


# -- the whole service -----------------------------------------------------------------------------------------------


def service(url: str, ran: list[str]) -> FastAPI:
    """An application that adds a task for each request."""
    app = FastAPI()
    manager = TaskManager(snapshot_backend=url, requeue_pending=True, commit_timeout=2.0)
    TaskAdmin(app, manager)

    @app.post("/add/{name}")
    async def add(name: str, tasks: ManagedBackgroundTasks) -> str:
        return tasks.add_task(ran.append, name)

    return app


async def test_requests_get_503_while_it_is_away_and_what_was_accepted_runs(url: str, proxy: Proxy) -> None:
    """Under load, with connections that break in the middle of whatever they were doing."""
    ran: list[str] = []
    accepted: dict[str, str] = {}
    refused: set[str] = set()
    ended = asyncio.Event()

    async with serving(service(url, ran)) as client:

        async def load(which: int) -> None:
            number = 0
            while not ended.is_set():
                number += 1
                name = f"{which}-{number}"
                answer = await client.post(f"/add/{name}")
                assert answer.status_code in {200, 503}, answer.text
                if answer.status_code == 200:
                    accepted[name] = answer.json()
                else:
                    refused.add(name)

        loads = [asyncio.create_task(load(which)) for which in range(4)]

        async def more(of: Sized, number: int) -> None:
            least = len(of) + number

            async def count() -> int:
                return len(of)

            await eventually(count, least.__le__, within=30.0)

        for _ in range(3):
            await more(accepted, 20)
            await proxy.cut()
            await more(refused, 1)
            assert (await client.get("/tasks/health")).status_code == 503
            assert (await client.get("/tasks")).status_code == 503
            await proxy.open()
        await more(accepted, 20)
        ended.set()
        await asyncio.gather(*loads)

        async def health() -> int:
            return (await client.get("/tasks/health")).status_code

        await eventually(health, lambda found: found == 200)

        async def open_tasks() -> int:
            answer = await client.get("/tasks", params={"status": "pending", "limit": 1})
            running = await client.get("/tasks", params={"status": "running", "limit": 1})
            return int(answer.headers["x-total-count"]) + int(running.headers["x-total-count"])

        await eventually(open_tasks, lambda found: found == 0, within=30.0)
        for name, task_id in accepted.items():
            assert (await client.get(f"/tasks/{task_id}")).json()["status"] == "success", name
        stored = await client.get("/tasks", params={"limit": 1})
        statuses = await statuses_of(url)
        assert sum(statuses.values()) == int(stored.headers["x-total-count"])
        assert statuses["success"] == len(accepted)
    assert sorted(ran) == sorted(accepted)
    assert len(ran) == len(set(ran))


async def statuses_of(url: str) -> dict[str, int]:
    """The tasks by status, counted one by one."""
    engine = create_async_engine(sa.make_url(url).set(query={}))
    async with engine.connect() as connection:
        rows = await connection.execute(sa.text("SELECT status, count(*) FROM taskflow_tasks GROUP BY status"))
        found = {row[0]: row[1] for row in rows}
    await engine.dispose()
    return found
