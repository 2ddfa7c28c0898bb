"""Rare writes: retention, the instances' signs of life, and small settings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fastapi_taskflow.stores.dialects import insert
from fastapi_taskflow.stores.durations import timed
from fastapi_taskflow.stores.queries import prunable
from fastapi_taskflow.stores.rows import nested_columns
from fastapi_taskflow.stores.schema import counters, durations, instances, meta, tasks

if TYPE_CHECKING:
    from fastapi_taskflow.store import Instance
    from fastapi_taskflow.task.record import TaskRecord


AT_ONCE: Final = 500
"""Ids that one statement names."""


def prune(connection: sa.Connection, *, before: float, limit: int) -> int:
    """Delete at most ``limit`` finished tasks that ended before, counters included; return how many."""
    # Locked, so that two instances that prune at once do not take the same task from the counters twice.
    chosen = prunable(before, limit).with_for_update(skip_locked=True)
    rows = connection.execute(chosen).all()
    if not rows:
        return 0
    counts = Counter((row.func_name, row.status) for row in rows)
    times = [(row.func_name, timed(row.status, row.start_time, row.end_time)) for row in rows]
    buckets = Counter((func_name, entry[0]) for func_name, entry in times if entry is not None)
    seconds: Counter[tuple[str, int]] = Counter()
    for func_name, entry in times:
        if entry is not None:
            seconds[func_name, entry[0]] += entry[1]  # type: ignore[assignment] # a Counter of floats
    ids = [row.task_id for row in rows]
    for start in range(0, len(ids), AT_ONCE):
        connection.execute(sa.delete(tasks).where(tasks.c.task_id.in_(ids[start : start + AT_ONCE])))
    # Sorted, as everybody does it who changes several counters: they lock each other's rows in one order.
    for (func_name, status), count in sorted(counts.items()):
        connection.execute(
            sa.update(counters)
            .where(counters.c.func_name == func_name, counters.c.status == status)
            .values(count=counters.c.count - count)
        )
    for (func_name, bucket), count in sorted(buckets.items()):
        connection.execute(
            sa.update(durations)
            .where(durations.c.func_name == func_name, durations.c.bucket == bucket)
            .values(count=durations.c.count - count, seconds=durations.c.seconds - seconds[func_name, bucket])
        )
    return len(rows)


def beat(connection: sa.Connection, instance: Instance, now: float | sa.ColumnElement[float]) -> None:
    """Write the instance's row, new or not, with ``now`` as its sign of life."""
    values: dict[str, Any] = {name: getattr(instance, name) for name in instances.c.keys()}  # noqa: SIM118 - not a dict
    values["heartbeat_at"] = now
    rest = {name: value for name, value in values.items() if name != "instance_id"}
    connection.execute(
        insert(connection, instances).values(values).on_conflict_do_update(index_elements=["instance_id"], set_=rest)
    )


def forget(connection: sa.Connection, instance_id: str, beat: float | None) -> None:
    """Delete the instance's row, if its last sign of life still is ``beat``, or whatever it is for None."""
    statement = sa.delete(instances).where(instances.c.instance_id == instance_id)
    connection.execute(statement if beat is None else statement.where(instances.c.heartbeat_at == beat))


def put_meta(connection: sa.Connection, key: str, value: str, *, expires_at: float | None, now: float) -> str:
    """Keep a setting if its key is free or expired; return the value held now."""
    connection.execute(sa.delete(meta).where(meta.c.expires_at <= now))
    new = insert(connection, meta).values(key=key, value=value, expires_at=expires_at)
    connection.execute(
        new.on_conflict_do_update(
            index_elements=["key"],
            set_={"value": new.excluded.value, "expires_at": new.excluded.expires_at},
            where=meta.c.expires_at <= now,
        )
    )
    held: str = connection.execute(sa.select(meta.c.value).where(meta.c.key == key)).scalar_one()
    return held


def set_meta(connection: sa.Connection, key: str, value: str) -> None:
    """Keep a setting, in place of an earlier one."""
    values: dict[str, Any] = {"value": value, "expires_at": None}
    new = insert(connection, meta).values(key=key, **values)
    connection.execute(new.on_conflict_do_update(index_elements=["key"], set_=values))


def drop_meta(connection: sa.Connection, key: str) -> bool:
    """Delete a setting; return whether there was one."""
    return connection.execute(sa.delete(meta).where(meta.c.key == key)).rowcount > 0


def rewrite(connection: sa.Connection, record: TaskRecord) -> bool:
    """Replace the texts of a task whose row has this version; return whether it has."""
    texts = {"payload": record.payload, "result": record.result, "follow": record.follow}
    statement = (
        sa.update(tasks)
        .where(tasks.c.task_id == record.task_id, tasks.c.version == record.version)
        .values(**texts, logs=nested_columns(record)[1])
    )
    return connection.execute(statement).rowcount > 0
