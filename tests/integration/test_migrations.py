"""From every earlier schema, with data, to this one; and what is refused."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from fastapi_taskflow.errors import SchemaVersionError, StoreError
from fastapi_taskflow.store import Change, Store, TaskQuery, WriteResult
from fastapi_taskflow.stores.migrate import MIGRATIONS
from fastapi_taskflow.stores.postgresql import PostgresqlStore
from fastapi_taskflow.stores.schema import HEAD, KNOWN_REVISIONS, VERSION_TABLE, metadata
from fastapi_taskflow.stores.sql import SqlStore
from fastapi_taskflow.task.record import FINISHED, TaskStatus

S = TaskStatus

OPENER = """
import asyncio, sys
from fastapi_taskflow import TaskManager

async def main(url):
    store = TaskManager(snapshot_backend=url).store
    sys.stdin.read(1)
    await store.open()
    print(await store.stats())
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """Connections to it."""
    made = create_async_engine(url, poolclass=NullPool)
    yield made
    await made.dispose()


def store_at(url: str, **options: Any) -> Store:
    """The store for this database."""
    return SqlStore(url, **options) if url.startswith("sqlite") else PostgresqlStore(url, **options)


def upgrade(connection: sa.Connection, revision: str) -> None:
    """Migrate as an earlier version of this package did."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def fill(connection: sa.Connection) -> None:
    """Put in a task of each status, two of one, with what else the first schema knew."""
    tasks = sa.Table("taskflow_tasks", sa.MetaData(), autoload_with=connection)
    for number, status in enumerate([*S, S.SUCCESS]):
        timed = status in {S.SUCCESS, S.FAILED}
        ended = status in FINISHED
        row = {
            "task_id": f"task-{number}", "func_name": "send", "status": status.value, "created_at": 100.0 + number,
            "version": 3, "owner": "gone", "queue": "default", "priority": 0, "source": "request", "executor": "async",
            "attempt": 1, "max_attempts": 2, "ready_at": 100.0, "requeue_on_interrupt": False, "recoveries": 0,
            "payload": '{"args": [1]}', "tags": '[\n"a"\n]', "start_time": 101.0 if timed else None,
            "end_time": 103.0 if ended else None, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "trace_id": "a" * 32,
        }  # fmt: skip
        connection.execute(tasks.insert().values({name: value for name, value in row.items() if name in tasks.c}))
    for status in S:
        count = 2 if status is S.SUCCESS else 1
        counter = {"status": status.value, "count": count}
        connection.execute(sa.text("INSERT INTO taskflow_counters VALUES ('send', :status, :count)"), counter)
    connection.exec_driver_sql("INSERT INTO taskflow_durations VALUES ('send', 10, 3, 6.0)")
    connection.exec_driver_sql("INSERT INTO taskflow_meta VALUES ('secret', 'kept', NULL)")


@pytest.mark.parametrize("revision", sorted(KNOWN_REVISIONS))
async def test_a_database_of_every_earlier_version_is_taken_over(url: str, engine: AsyncEngine, revision: str) -> None:
    """Everything is readable, counted, can be claimed and goes on."""
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, revision)
        await connection.run_sync(fill)
    store = store_at(url)
    await store.open()
    try:
        records = (await store.list(TaskQuery())).records
        assert [record.status for record in records] == [S.SUCCESS, *reversed(S)]
        first = await store.get("task-0")
        assert first is not None
        assert (first.tags, first.payload, first.trace_id) == (("a",), '{"args": [1]}', "a" * 32)
        stats = (await store.stats())["send"]
        assert stats.counts == {status: 2 if status is S.SUCCESS else 1 for status in S}
        assert (stats.duration_count, stats.duration_sum) == (3, 6.0)
        assert await store.get_meta("secret") == "kept"

        claimed = await store.claim("me", {}, limit=10)
        assert [record.status for record in claimed] == [S.PENDING, S.RUNNING]
        done = claimed[0].evolve(status=S.SUCCESS, start_time=1.0, end_time=3.0)
        assert await store.write([Change(done, claimed[0])]) == WriteResult()
        assert await store.prune(before=200.0, limit=10) == len(FINISHED - {S.INTERRUPTED}) + 2
        assert (await store.stats())["send"].counts == {S.RUNNING: 1, S.INTERRUPTED: 1}
        assert (await store.stats())["send"].duration_sum == pytest.approx(0.0)
    finally:
        await store.close()


async def test_the_migrations_build_what_the_code_describes(url: str, engine: AsyncEngine) -> None:
    """Alembic finds nothing to add to a database that the store has made."""
    store = store_at(url)
    await store.open()
    await store.close()

    def differs(context: MigrationContext, _: object, __: object, there: Any, described: Any) -> bool:
        # SQLAlchemy's own name for text where PostgreSQL has two for the same.
        names = [kind.compile(context.dialect).replace("VARCHAR", "TEXT") for kind in (there, described)]
        return bool(names[0] != names[1])

    def differences(connection: sa.Connection) -> list[Any]:
        options = {"version_table": VERSION_TABLE, "compare_type": differs}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_newer_schema_is_refused(url: str, engine: AsyncEngine) -> None:
    """This code does not know what it would break there."""
    store = store_at(url)
    await store.open()
    await store.close()
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE taskflow_alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaVersionError, match=r"9999.*upgrade the package"):
        await store_at(url).open()


async def test_without_migrate_an_old_schema_is_an_error(url: str, engine: AsyncEngine) -> None:
    """Somebody else migrates; what is up to date is taken."""
    with pytest.raises(StoreError, match="migrate is off"):
        await store_at(url, migrate=False).open()
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, HEAD)
    store = store_at(url, migrate=False)
    await store.open()
    assert await store.stats() == {}
    await store.close()


async def test_workers_that_start_at_once_migrate_once(url: str, engine: AsyncEngine) -> None:
    """Four processes find nothing; one builds the tables, and all of them work."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", OPENER, url,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    answers = await asyncio.gather(*(process.communicate(b"x") for process in processes))
    assert [out.decode().strip() for out, _ in answers] == ["{}"] * 4, answers
    async with engine.connect() as connection:
        versions = (
            (await connection.exec_driver_sql("SELECT version_num FROM taskflow_alembic_version")).scalars().all()
        )
    assert versions == [HEAD]
