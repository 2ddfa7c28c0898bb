"""What the SQL stores have in common: all reading, and the writing that is rare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeVar

import sqlalchemy as sa

from fastapi_taskflow import clock
from fastapi_taskflow.store import DURATION_BOUNDS, Act, FunctionStats, Instance, Page
from fastapi_taskflow.stores import auditing, queries, schema, sharing, upkeep
from fastapi_taskflow.stores.cursor import decode_cursor, encode_cursor
from fastapi_taskflow.stores.rows import readable, record_from
from fastapi_taskflow.stores.schema import instances, meta
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection

    from fastapi_taskflow.store import Carrier, OnCommit, TaskQuery
    from fastapi_taskflow.task.record import TaskRecord

_T = TypeVar("_T")


class TableStore(ABC):
    """Keeps tasks in the tables of `schema`. A filling adds its connections and the hot path, `Store.write`.

    Args:
        url: The database.
    """

    _merges: ClassVar = True
    """See `queries.page`."""

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._instance: Instance | None = None

    @property
    def persistent(self) -> bool:
        """True: what is stored outlives the process."""
        return True

    @property
    def company_warning(self) -> str | None:
        """None: the database is made for it."""
        return None

    @abstractmethod
    async def _transaction(self, job: Callable[[sa.Connection], _T]) -> _T:
        """Call ``job`` within a transaction that may write."""

    @abstractmethod
    def _reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection to read with."""

    @abstractmethod
    def _now(self) -> sa.ColumnElement[float]:
        """Return the time by the clock that all instances share."""

    # -- rare writes -------------------------------------------------------------------------------------------------

    async def prune(self, *, before: float, limit: int) -> int:
        """Delete old finished records; see `Store.prune`."""
        return await self._transaction(lambda db: upkeep.prune(db, before=before, limit=limit))

    async def beat(self, instance: Instance) -> None:
        """Write the instance's row, new or not, with the store's time."""
        now = self._now()
        await self._transaction(lambda db: upkeep.beat(db, instance, now))
        self._instance = instance

    async def forget(self, instance_id: str, *, beat: float | None = None) -> None:
        """Delete the instance's row, if it has not beaten since; see `Store.forget`."""
        if self._instance is not None and self._instance.instance_id == instance_id:
            self._instance = None
        await self._transaction(lambda db: upkeep.forget(db, instance_id, beat))

    async def put_meta(self, key: str, value: str, *, expires_at: float | None = None) -> str:
        """Keep a small setting if the key is free or expired; return the value held now."""
        now = clock.now()
        return await self._transaction(lambda db: upkeep.put_meta(db, key, value, expires_at=expires_at, now=now))

    async def rewrite(self, record: TaskRecord) -> bool:
        """Replace the texts of a stored task; see `Store.rewrite`."""
        return await self._transaction(lambda db: upkeep.rewrite(db, record))

    async def set_meta(self, key: str, value: str) -> None:
        """Keep a small setting in place of an earlier one."""
        await self._transaction(lambda db: upkeep.set_meta(db, key, value))

    async def drop_meta(self, key: str) -> bool:
        """Delete a small setting; return whether there was one."""
        return await self._transaction(lambda db: upkeep.drop_meta(db, key))

    async def add_act(self, act: Act) -> None:
        """Add to the audit log."""
        await self._transaction(lambda db: auditing.add(db, act))

    async def prune_acts(self, *, before: float, limit: int) -> int:
        """Delete old acts; see `Store.prune_acts`."""
        return await self._transaction(lambda db: auditing.prune(db, before=before, limit=limit))

    # -- among instances ---------------------------------------------------------------------------------------------

    async def claim(self, owner: str, dead: Mapping[str, float], *, limit: int) -> Sequence[TaskRecord]:
        """Take over tasks of nobody who lives; see `Store.claim`."""
        async with self._reading() as db:
            # Most often there is nothing, and no need for the write lock.
            if (await db.execute(queries.ownerless(owner, dead))).first() is None:
                return ()
        now = clock.now()
        rows = await self._transaction(lambda db: sharing.claim(db, owner, dead, now=now, limit=limit))
        return readable(rows)

    async def take(self, task_id: str, *, of: str, owner: str) -> TaskRecord | None:
        """Take one pending task from its owner; see `Store.take`."""
        row = await self._transaction(lambda db: sharing.take(db, task_id, of, owner))
        return None if row is None else record_from(row)

    async def ask_to_cancel(self, task_id: str) -> None:
        """Leave a request for the task's owner; see `Store.ask_to_cancel`."""
        now = clock.now()
        await self._transaction(lambda db: sharing.ask_to_cancel(db, task_id, now))

    async def asked_to_cancel(self, owner: str) -> Sequence[str]:
        """Take the requests for an instance's tasks; see `Store.asked_to_cancel`."""
        async with self._reading() as db:
            if (await db.execute(sharing.ASKED)).first() is None:
                return ()
        return await self._transaction(lambda db: sharing.asked_to_cancel(db, owner))

    async def save_numbers(self, instance_id: str, host: str, numbers: str) -> None:
        """Keep an instance's metrics; see `Store.save_numbers`."""
        now = self._now()
        await self._transaction(lambda db: sharing.save_numbers(db, instance_id, host, numbers, now))

    async def numbers(self, host: str) -> Mapping[str, str]:
        """Return the kept metrics of a host, by instance id."""
        table = schema.numbers
        async with self._reading() as db:
            rows = await db.execute(sa.select(table.c.instance_id, table.c.numbers).where(table.c.host == host))
            return {row.instance_id: row.numbers for row in rows}

    async def merge_numbers(
        self, host: str, gone: Sequence[str], into: str, merge: Callable[[Sequence[str]], str]
    ) -> None:
        """Put metrics together; see `Store.merge_numbers`."""
        now = self._now()
        await self._transaction(lambda db: sharing.merge_numbers(db, host, gone, into, merge, now=now))

    async def forget_numbers(self, age: float) -> None:
        """Delete the metrics of hosts that are gone; see `Store.forget_numbers`."""
        before = self._now() - age
        await self._transaction(lambda db: sharing.forget_numbers(db, before))

    def carrier(self, session: object, on_commit: OnCommit) -> Carrier:
        """Return what puts tasks into the transaction of ``session``; see `CarryingStore.carrier`."""
        # Imported where used: not everybody needs SQLAlchemy's ORM.
        from fastapi_taskflow.stores.joining import carrier_of

        return carrier_of(session, self._url, on_commit)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return the whole record, or None."""
        async with self._reading() as db:
            row = (await db.execute(queries.ONE, {"task_id": task_id})).first()
        return None if row is None else record_from(row)

    async def list(self, query: TaskQuery) -> Page:
        """Return one page; see `Store.list`."""
        after = decode_cursor(query)
        legs: dict[queries.Leg, int] | None = None
        total: int | None = None
        async with self._reading() as db:
            counted = query.only_counted
            if counted or query.statuses or query.func_name is not None:
                legs = queries.legs_of(query, [tuple(row) for row in await db.execute(queries.COUNTS)])
                total = sum(legs.values()) if counted else None
                if not legs:
                    return Page((), None, total)
            filtered = query.statuses or query.func_name is not None
            statement = queries.page(query, list(legs) if legs and filtered else None, after, merges=self._merges)
            rows = (await db.execute(statement)).all()
        records = tuple(readable(rows[: query.limit], queries.LISTED))
        more = len(rows) > query.limit and bool(records)
        cursor = encode_cursor(records[-1].created_at, records[-1].task_id, query) if more else None
        return Page(records, cursor, total)

    async def stats(self) -> Mapping[str, FunctionStats]:
        """Return the counters per function name."""
        async with self._reading() as db:
            counts = (await db.execute(queries.COUNTS)).all()
            times = (await db.execute(queries.DURATIONS)).all()
        by_status: dict[str, dict[TaskStatus, int]] = {}
        for func_name, status, count in counts:
            by_status.setdefault(func_name, {})[TaskStatus(status)] = count
        buckets = {func_name: [0] * (len(DURATION_BOUNDS) + 1) for func_name in by_status}
        seconds = dict.fromkeys(by_status, 0.0)
        for func_name, bucket, count, total in times:
            if func_name in buckets:
                buckets[func_name][bucket] = count
                seconds[func_name] += total
        return {
            func_name: FunctionStats(statuses, sum(buckets[func_name]), seconds[func_name], tuple(buckets[func_name]))
            for func_name, statuses in by_status.items()
        }

    async def owned(self, owner: str) -> frozenset[str]:
        """Return the ids of an instance's live tasks."""
        async with self._reading() as db:
            return frozenset((await db.execute(queries.owned(owner))).scalars())

    async def changes(self, since: float, *, limit: int) -> Sequence[TaskRecord]:
        """Return what is live, was added or ended since; see `Store.changes`."""
        found: dict[str, TaskRecord] = {}
        async with self._reading() as db:
            for statement in queries.changed(since, limit):
                rows = await db.execute(statement)
                found |= {record.task_id: record for record in readable(rows, queries.LISTED)}
        return list(found.values())

    async def instances(self) -> Sequence[Instance]:
        """Return all instances that have a row."""
        age = (self._now() - instances.c.heartbeat_at).label("age")
        async with self._reading() as db:
            rows = (await db.execute(sa.select(instances, age))).mappings().all()
        return [Instance(**row) for row in rows]

    async def get_meta(self, key: str) -> str | None:
        """Return a small setting, or None."""
        still_valid = sa.or_(meta.c.expires_at.is_(None), meta.c.expires_at > clock.now())
        async with self._reading() as db:
            value: str | None = (
                await db.execute(sa.select(meta.c.value).where(meta.c.key == key, still_valid))
            ).scalar()
        return value

    async def metas(self, prefix: str) -> Mapping[str, str]:
        """Return the small settings whose key begins with ``prefix``."""
        valid = sa.or_(meta.c.expires_at.is_(None), meta.c.expires_at > clock.now())
        wanted = sa.select(meta.c.key, meta.c.value).where(meta.c.key.startswith(prefix, autoescape=True), valid)
        async with self._reading() as db:
            rows = await db.execute(wanted.order_by(meta.c.key))
            # SQLite's LIKE takes capital and small letters for the same.
            return {row.key: row.value for row in rows if row.key.startswith(prefix)}

    async def acts(self, *, target: str | None = None, before: str | None = None, limit: int = 50) -> Sequence[Act]:
        """Return the audit log, newest first; see `Store.acts`."""
        async with self._reading() as db:
            rows = (await db.execute(auditing.newest(target, before, limit))).mappings().all()
        return [Act(**row) for row in rows]
