"""The SQLite store and its file: crashes, other processes, locks, wrong files, query plans."""

# ruff: noqa: ASYNC240 - the loop has nothing else to do while a test looks at its files

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fastapi_taskflow.errors import ConfigurationError, SchemaVersionError, StoreError, StoreUnavailableError
from fastapi_taskflow.store import Change, TaskQuery
from fastapi_taskflow.stores import queries, sqlite
from fastapi_taskflow.stores.schema import HEAD, KNOWN_REVISIONS, metadata
from fastapi_taskflow.stores.sql import SqlStore, sqlite_url
from fastapi_taskflow.task.record import LIVE, TaskRecord, TaskStatus, new_task_id

WRITER = """
import asyncio, pathlib, sys, time
from fastapi_taskflow.store import Change
from fastapi_taskflow.stores.sql import SqlStore
from fastapi_taskflow.task.record import LIVE, TaskRecord, TaskStatus, new_task_id

async def main(path, number):
    store = SqlStore(pathlib.Path(path))
    await store.open()
    for _ in range(number):
        batch = [TaskRecord(new_task_id(), "f", TaskStatus.PENDING, time.time(), owner="w") for _ in range(5)]
        result = await store.write([Change(record) for record in batch])
        assert not result.duplicates
        print(*[record.task_id for record in batch], flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def pending(**facts: Any) -> TaskRecord:
    """A new task."""
    known: dict[str, Any] = {"task_id": new_task_id(), "func_name": "f", "status": TaskStatus.PENDING}
    return TaskRecord(**(known | {"created_at": time.time(), "owner": "me"} | facts))


async def start_writer(path: Path, batches: int) -> asyncio.subprocess.Process:
    """Start a process that writes batches of five and prints what was acknowledged."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), str(batches), stdout=asyncio.subprocess.PIPE
    )


async def test_sigkill_loses_nothing_acknowledged(path: Path) -> None:
    """A writer killed in mid-stream leaves every row that it was told of, and counters that agree."""
    writer = await start_writer(path, 1_000_000)
    assert writer.stdout is not None
    acknowledged: list[str] = []
    while len(acknowledged) < 500:
        acknowledged += (await writer.stdout.readline()).decode().split()
    writer.send_signal(signal.SIGKILL)
    rest = (await writer.stdout.read()).decode()
    acknowledged += rest[: rest.rfind("\n") + 1].split()
    await writer.wait()

    with contextlib.closing(sqlite3.connect(path)) as db:
        stored = {row[0] for row in db.execute("SELECT task_id FROM taskflow_tasks")}
        (counted,) = db.execute("SELECT sum(count) FROM taskflow_counters").fetchone()
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert stored >= set(acknowledged)
    assert counted == len(stored)


async def test_two_processes_open_and_write_one_new_file(path: Path) -> None:
    """Both migrate at once, both write, and each row and count is there."""
    writers = await asyncio.gather(*(start_writer(path, 100) for _ in range(2)))
    printed = await asyncio.gather(*(writer.communicate() for writer in writers))
    assert [writer.returncode for writer in writers] == [0, 0]
    ids = {task_id for output, _ in printed for task_id in output.decode().split()}
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert {row[0] for row in db.execute("SELECT task_id FROM taskflow_tasks")} == ids
        assert db.execute("SELECT sum(count) FROM taskflow_counters").fetchone() == (1000,)


async def test_locked_for_two_seconds_only_delays(store: SqlStore, path: Path) -> None:
    """A write waits for another connection's lock, reads go on, and the loop stays free."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        write = asyncio.ensure_future(store.write([Change(pending())]))
        loop_began = time.monotonic()
        assert (await store.list(TaskQuery())).records == ()
        assert time.monotonic() - loop_began < 1
        done, _ = await asyncio.wait([write], timeout=2)
        assert not done
        other.execute("ROLLBACK")
    assert not (await write).duplicates


async def test_locked_for_longer_is_unavailable_and_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file; nothing is kept; the same store writes once the lock is gone."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    store = SqlStore(path)
    await store.open()
    record = pending()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match=r"tasks\.db.*locked"):
            await store.write([Change(record)])
        other.execute("ROLLBACK")
    assert await store.get(record.task_id) is None
    assert not (await store.write([Change(record)])).duplicates
    await store.close()


async def test_full_disk_is_unavailable_and_passes(store: SqlStore) -> None:
    """A database at its size limit refuses, and takes the same batch when there is room."""
    big = pending(payload="x" * 3_000_000)

    def limit(pages: int) -> Any:
        return lambda db: db.execute(f"PRAGMA max_page_count={pages}").fetchone()

    await store._writer.run(limit(100))
    with pytest.raises(StoreUnavailableError, match="full"):
        await store.write([Change(big)])
    await store._writer.run(limit(1_000_000))
    assert not (await store.write([Change(big)])).duplicates


async def test_broken_connection_is_replaced(store: SqlStore) -> None:
    """After an error of the connection itself the next call works on a new one."""
    await store._writer.run(lambda db: db.close())
    with pytest.raises(StoreError):
        await store.write([Change(pending())])
    assert not (await store.write([Change(pending())])).duplicates


async def test_deleted_file_is_made_anew(store: SqlStore, path: Path) -> None:
    """Writing goes on when somebody removed the file, after errors that say so."""
    await store.write([Change(pending())])
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    with pytest.raises(StoreUnavailableError, match=r"tasks\.db.*moved, replaced or deleted"):
        await store.write([Change(pending())])
    with pytest.raises(StoreUnavailableError, match="written into the new file"):
        await store.write([Change(pending())])
    assert not (await store.write([Change(pending())])).duplicates
    assert path.exists()


async def test_history_survives_reopening(path: Path) -> None:
    """What was stored is there for the next start."""
    record = pending()
    for turn in range(2):
        store = SqlStore(sqlite_url(path))
        await store.open()
        if turn == 0:
            await store.write([Change(record)])
        assert await store.get(record.task_id) == record
        await store.close()


@pytest.mark.parametrize(
    "url",
    ["sqlite+aiosqlite:///:memory:", "sqlite+aiosqlite://", "mysql://x/y", "no url", "sqlite:////no/such/dir/t.db"],
)
def test_wrong_place_is_a_configuration_error(url: str) -> None:
    """What cannot work is refused before anything starts."""
    with pytest.raises(ConfigurationError):
        SqlStore(url)


def test_folder_is_no_database(tmp_path: Path) -> None:
    """A folder is named as the mistake."""
    with pytest.raises(ConfigurationError, match="is a folder"):
        SqlStore(tmp_path)


async def test_file_that_is_no_database_is_a_store_error(path: Path) -> None:
    """A foreign file is not touched, and named."""
    path.write_text("this is a letter, not a database\n" * 100)
    with pytest.raises(StoreError, match=r"tasks\.db"):
        await SqlStore(path).open()
    assert path.read_text().startswith("this is a letter")


async def test_not_open_is_a_store_error(path: Path) -> None:
    """Both ways in say that the store is not open."""
    store = SqlStore(path)
    with pytest.raises(StoreError, match="not open"):
        await store.write([Change(pending())])
    with pytest.raises(StoreError, match="not open"):
        await store.get("x")


async def test_missing_schema_without_migrate_is_an_error(path: Path) -> None:
    """An operator who migrates by hand is told what to do."""
    with pytest.raises(StoreError, match="migrate is off"):
        await SqlStore(path, migrate=False).open()


async def test_newer_schema_is_refused(store: SqlStore, path: Path) -> None:
    """A database of a newer version is not written by this one."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE taskflow_alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaVersionError, match="9999"):
        await SqlStore(path).open()


async def test_migrations_build_what_the_code_describes(store: SqlStore, path: Path) -> None:
    """Tables, columns and indexes are those of the metadata, and HEAD is the newest revision."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from fastapi_taskflow.stores.migrate import MIGRATIONS

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == HEAD
    assert {script.revision for script in scripts.walk_revisions()} == KNOWN_REVISIONS

    described = path.with_name("described.db")
    engine = sa.create_engine(f"sqlite:///{described}")
    metadata.create_all(engine)
    engine.dispose()

    def schema(file: Path) -> set[str]:
        with contextlib.closing(sqlite3.connect(file)) as db:
            rows = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '%alembic%'")
            return {" ".join(sql.split()).replace(" ,", ",") for (sql,) in rows}

    assert schema(path) == schema(described)


async def test_up_to_date_schema_needs_no_alembic(store: SqlStore, path: Path) -> None:
    """A second start does not pay for the import, and no start touches logging."""
    code = (
        "import asyncio, logging, pathlib, sys; from fastapi_taskflow.stores.sql import SqlStore\n"
        "async def main():\n    s = SqlStore(pathlib.Path(sys.argv[1])); await s.open(); await s.close()\n"
        "asyncio.run(main()); print('alembic' in sys.modules, logging.getLogger().handlers)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert (await process.communicate())[0].decode().split() == ["False", "[]"]


def plan(path: Path, statement: Any) -> Sequence[str]:
    """What SQLite does for a statement."""
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    text = str(statement.compile(engine, compile_kwargs={"literal_binds": True}))
    with engine.connect() as db:
        return [row[3] for row in db.exec_driver_sql("EXPLAIN QUERY PLAN " + text.replace("%", "%%"))]


FAILED = frozenset({TaskStatus.FAILED})
LEGS = [("f", "failed"), ("g", "failed"), ("f", "pending")]
PLANS = {
    "list": queries.page(TaskQuery(), None, None),
    "list, page 2": queries.page(TaskQuery(), None, (5.0, "x")),
    "list since": queries.page(TaskQuery(since=1.0, until=2.0, oldest_first=True), None, None),
    "one leg": queries.page(TaskQuery(statuses=FAILED), LEGS[:1], (5.0, "x")),
    "legs": queries.page(TaskQuery(statuses=FAILED), LEGS, None),
    "legs, page 2": queries.page(TaskQuery(statuses=FAILED, oldest_first=True), LEGS, (5.0, "x")),
    "many legs": queries.page(TaskQuery(statuses=FAILED), [(f"f{n}", "failed") for n in range(50)], None),
    "live of a schedule": queries.page(TaskQuery(schedule="s", statuses=LIVE), LEGS, None),
    "newest of a schedule": queries.page(TaskQuery(schedule="s"), None, None),
    "ownerless": queries.ownerless("me", {"a", "b"}),
    "prune": queries.prunable(5.0, 10),
    "get": queries.ONE.params(task_id="x"),
}


@pytest.mark.parametrize("name", PLANS)
async def test_statement_walks_an_index_in_order(store: SqlStore, path: Path, name: str) -> None:
    """No statement reads the table from end to end, or sorts what it found."""
    steps = plan(path, PLANS[name])
    assert any("INDEX" in step for step in steps)
    for step in steps:
        assert "TEMP B-TREE" not in step, steps
        assert not (step.startswith("SCAN") and "INDEX" not in step), steps


async def test_trace_is_found_by_its_index(store: SqlStore, path: Path) -> None:
    """The few tasks of one trace are looked up, then sorted."""
    steps = plan(path, queries.page(TaskQuery(trace_id="a" * 32), None, None))
    assert any("ix_taskflow_tasks_trace" in step for step in steps), steps


async def test_what_lives_of_a_schedule_is_found_whatever_its_history(store: SqlStore, path: Path) -> None:
    """By an index that has nothing else in it, for one schedule and for all whose names begin alike."""
    for schedule in ("s", "s*"):
        steps = plan(path, queries.page(TaskQuery(schedule=schedule, statuses=LIVE, oldest_first=True), LEGS, None))
        assert any("ix_taskflow_tasks_scheduled" in step for step in steps), steps


async def test_prune_of_a_long_history_is_bounded(store: SqlStore) -> None:
    """With 100,000 old records one call deletes its limit and takes a fraction of a second."""
    records = [
        pending(status=TaskStatus.SUCCESS, created_at=float(n), start_time=1.0, end_time=2.0) for n in range(100_000)
    ]
    for start in range(0, len(records), 10_000):
        await store.write([Change(record) for record in records[start : start + 10_000]])
    began = time.monotonic()
    assert await store.prune(before=3.0, limit=500) == 500
    assert time.monotonic() - began < 1
    assert (await store.stats())["f"].duration_count == 99_500
