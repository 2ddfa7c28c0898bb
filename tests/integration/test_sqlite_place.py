"""A SQLite file that is replaced, moved or deleted while it is open: nothing is written where nobody finds it."""

# ruff: noqa: ASYNC240 - the loop has nothing else to do while a test looks at its files

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from fastapi_taskflow.errors import StoreUnavailableError
from fastapi_taskflow.store import Change, Instance, TaskQuery
from fastapi_taskflow.stores.sql import SqlStore
from fastapi_taskflow.task.record import TaskRecord, TaskStatus, new_task_id

if TYPE_CHECKING:
    from pathlib import Path


def pending(**facts: Any) -> TaskRecord:
    """A new task."""
    known: dict[str, Any] = {"task_id": new_task_id(), "func_name": "f", "status": TaskStatus.PENDING}
    return TaskRecord(**(known | {"created_at": time.time(), "owner": "me"} | facts))


async def filled(path: Path) -> TaskRecord:
    """Make a database with one task in it."""
    store = SqlStore(path)
    await store.open()
    record = pending()
    await store.write([Change(record)])
    await store.close()
    return record


async def written(store: SqlStore, record: TaskRecord) -> None:
    """Write a new task as the journal does: again, after an error."""
    for _ in range(2):
        with contextlib.suppress(StoreUnavailableError):
            await store.write([Change(record)])
            return
    await store.write([Change(record)])


def ids(path: Path) -> set[str]:
    """What another program finds at the path, which must be a sound database."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {task_id for (task_id,) in db.execute("SELECT task_id FROM taskflow_tasks")}


async def test_another_file_over_it_is_written_to_and_left_sound(store: SqlStore, path: Path) -> None:
    """A write into the old file fails, the next ones go into the new one, which the old one's log does not touch."""
    old, new = pending(payload="x" * 100_000), pending()
    await store.write([Change(old)])
    there = await filled(path.with_name("new.db"))
    assert await store.get(old.task_id) is not None
    path.with_name("new.db").rename(path)
    with pytest.raises(StoreUnavailableError, match="moved, replaced or deleted"):
        await store.write([Change(new)])
    assert store.generation == 0
    with pytest.raises(StoreUnavailableError, match="written into the new file"):
        await store.write([Change(new)])
    assert store.generation == 1
    assert not (await store.write([Change(new)])).duplicates
    assert {record.task_id for record in (await store.list(TaskQuery())).records} == {there.task_id, new.task_id}
    await store.close()
    assert ids(path) == {there.task_id, new.task_id}


async def test_a_reader_notices_it_too(store: SqlStore, path: Path) -> None:
    """A page is never read from a file that is not there any more."""
    await store.write([Change(pending())])
    assert len((await store.list(TaskQuery())).records) == 1
    there = await filled(path.with_name("new.db"))
    path.with_name("new.db").rename(path)
    assert [record.task_id for record in (await store.list(TaskQuery())).records] == [there.task_id]
    assert store.generation == 1


async def test_a_file_that_was_moved_away_has_all_that_was_committed(store: SqlStore, path: Path) -> None:
    """The log goes after its file, and a new file is begun."""
    old, new = pending(), pending()
    await store.write([Change(old)])
    moved = path.rename(path.with_name("moved.db"))
    await written(store, new)
    await store.close()
    assert ids(moved) >= {old.task_id}
    assert ids(path) == {new.task_id}


async def test_a_log_that_was_deleted_loses_nothing(store: SqlStore, path: Path) -> None:
    """What was only in the log is put into the database, and other programs find it there."""
    first, second, third = pending(), pending(), pending()
    await store.write([Change(first)])
    path.with_name("tasks.db-wal").unlink()
    await store.write([Change(second)])
    await store.write([Change(third)])
    assert len((await store.list(TaskQuery())).records) == 3
    assert store.generation == 0
    assert ids(path) == {first.task_id, second.task_id, third.task_id}


async def test_a_link_that_leads_elsewhere_is_followed(path: Path) -> None:
    """The files of both databases stay as they are."""
    await filled(path.with_name("one.db"))
    there = await filled(path.with_name("two.db"))
    path.symlink_to("one.db")
    store = SqlStore(path)
    await store.open()
    path.unlink()
    path.symlink_to("two.db")
    record = pending()
    await written(store, record)
    await store.close()
    assert ids(path.with_name("two.db")) == {there.task_id, record.task_id}
    assert len(ids(path.with_name("one.db"))) >= 1


async def test_the_instance_lives_in_the_new_file_at_once(store: SqlStore, path: Path) -> None:
    """Nobody else takes its tasks for a dead one's before its next heartbeat."""
    await store.beat(Instance("me", "host", 1, 1, time.time(), time.time()))
    await filled(path.with_name("new.db"))
    path.with_name("new.db").rename(path)
    await written(store, pending())
    assert [instance.instance_id for instance in await store.instances()] == ["me"]
    await store.forget("me")
    await store._writer.run(lambda db: db.close())
    with contextlib.suppress(Exception):
        await store.write([Change(pending())])
    await store.write([Change(pending())])
    assert not await store.instances()


async def test_two_processes_do_not_delete_each_others_log(path: Path) -> None:
    """The second store to notice leaves what the first one began for the new file."""
    stores = [SqlStore(path), SqlStore(path)]
    for store in stores:
        await store.open()
        await store.write([Change(pending())])
    there = await filled(path.with_name("new.db"))
    path.with_name("new.db").rename(path)
    records = [pending() for _ in stores]
    for store, record in zip(stores, records, strict=True):
        await written(store, record)
    everything = {there.task_id, *(record.task_id for record in records)}
    for store in stores:
        assert {record.task_id for record in (await store.list(TaskQuery())).records} == everything
        await store.close()
    assert ids(path) == everything


async def test_a_relative_path_stays_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed working directory is no replaced file."""
    monkeypatch.chdir(tmp_path)
    store = SqlStore("sqlite+aiosqlite:///tasks.db")
    await store.open()
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    await store.write([Change(pending())])
    assert len((await store.list(TaskQuery())).records) == 1
    assert store.generation == 0
    await store.close()
    assert len(ids(tmp_path / "tasks.db")) == 1
    assert not any((tmp_path / "elsewhere").iterdir())
