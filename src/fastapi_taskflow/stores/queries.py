"""The reading statements, written so that each finds its rows through an index and already in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fastapi_taskflow.stores.dialects import place_of
from fastapi_taskflow.stores.matching import name_matches
from fastapi_taskflow.stores.rows import COLUMNS, HEAVY, tag_needle, text_needles
from fastapi_taskflow.stores.schema import IS_DEAD, IS_LIVE, IS_PRUNABLE, counters, durations, instances, tasks
from fastapi_taskflow.task.record import LIVE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from fastapi_taskflow.store import TaskQuery

Leg = tuple[str, str]
"""A function's name and a status: rows with both lie in order in the index."""

MAX_LEGS: Final = 32
LISTED: Final = tuple(name for name in COLUMNS if name not in HEAVY)

_t = tasks.c
WHOLE: Final = [_t[name] for name in COLUMNS]
_listed = [_t[name] for name in LISTED]

ONE: Final = sa.select(*WHOLE).where(_t.task_id == sa.bindparam("task_id"))
COUNTS: Final = sa.select(counters.c.func_name, counters.c.status, counters.c.count).where(counters.c.count > 0)
DURATIONS: Final = sa.select(durations.c.func_name, durations.c.bucket, durations.c.count, durations.c.seconds).where(
    durations.c.count > 0
)


def legs_of(query: TaskQuery, counts: Iterable[tuple[str, str, int]]) -> dict[Leg, int]:
    """Return the counted pairs of function and status that ``query`` asks for, with their counts."""
    statuses = {status.value for status in query.statuses}
    return {
        (func_name, status): count
        for func_name, status, count in counts
        if (not statuses or status in statuses)
        and (query.func_name is None or name_matches(query.func_name, func_name))
    }


def page(
    query: TaskQuery, legs: Sequence[Leg] | None, after: tuple[float, str] | None, *, merges: bool = True
) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    """Return the statement for one page and one row more.

    Args:
        query: What to list.
        legs: What the filters by function and status come to; None if there are none. A few legs are merged, each
            read in order from the index. Many, or a trace, are filters of one walk.
        after: The key behind which the page begins.
        merges: Whether the database merges legs by itself while it reads them, as SQLite does. PostgreSQL does it only
            where each is in order already; so each is read no further than for the whole page.
    """
    conditions = _conditions(query, after)
    if legs is None or query.dead or query.relations or len(legs) > MAX_LEGS:
        if query.statuses:
            wanted = _t.status.in_(sorted(status.value for status in query.statuses))
            conditions.append(IS_LIVE if query.statuses == LIVE else wanted)
        if legs is not None and query.func_name is not None:
            conditions.append(_t.func_name.in_(sorted({func_name for func_name, _ in legs})))
        select: Any = sa.select(*_listed).where(*conditions)
        columns: Any = _t
    else:
        parts: list[Any] = [
            sa.select(*_listed).where(_t.func_name == func_name, _t.status == status, *conditions)
            for func_name, status in legs
        ]
        if len(parts) > 1 and not merges:
            parts = [part.order_by(*_order(query, _t)).limit(query.limit + 1) for part in parts]
        select = parts[0] if len(parts) == 1 else sa.union_all(*parts)
        columns = select.selected_columns
    statement: sa.Select[Any] | sa.CompoundSelect[Any] = select.order_by(*_order(query, columns))
    return statement.limit(query.limit + 1)


def _order(query: TaskQuery, columns: Any) -> Sequence[sa.ColumnElement[Any]]:
    key = (columns.created_at, columns.task_id)
    return key if query.oldest_first else tuple(column.desc() for column in key)


def _conditions(query: TaskQuery, after: tuple[float, str] | None) -> list[Any]:
    found: list[Any] = []
    if after is not None:
        here, there = (
            sa.tuple_(_t.created_at, _t.task_id),
            sa.tuple_(sa.literal(after[0], _t.created_at.type), sa.literal(after[1], _t.task_id.type)),
        )
        found.append(here > there if query.oldest_first else here < there)
    if query.queue is not None:
        found.append(_t.queue == query.queue)
    found += [_related(name, value) for name, value in query.relations.items()]
    if query.dead:
        found.append(IS_DEAD)
    if query.since is not None:
        found.append(_t.created_at >= query.since)
    if query.until is not None:
        found.append(_t.created_at < query.until)
    if query.tag is not None:
        found.append(place_of(_t.tags, sa.literal(tag_needle(query.tag), sa.Text)) > 0)
    if query.text is not None:
        plain, encoded = text_needles(query.text)
        found.append(
            sa.or_(
                *(column.icontains(plain, autoescape=True) for column in (_t.task_id, _t.func_name, _t.error)),
                _t.tags.icontains(encoded, autoescape=True),
            )
        )
    return found


def _related(name: str, value: str) -> Any:
    if name != "schedule" or not value.endswith("*"):
        return _t[name] == value
    # A range, which an index can walk. Text is compared by its code points in both databases.
    first = value[:-1]
    return sa.and_(_t.schedule >= first, _t.schedule <= first + "\U0010ffff")


def claimable(owner: str, dead: Collection[str]) -> sa.Select[Any]:
    """Return the statement for the ids of live tasks of others than ``owner`` and the living, in whatever order."""
    living = sa.select(instances.c.instance_id).where(instances.c.instance_id.not_in(sorted(dead)))
    return sa.select(_t.task_id).where(IS_LIVE, _t.owner != owner, _t.owner.not_in(living))


def ownerless(owner: str, dead: Collection[str]) -> sa.Select[Any]:
    """Return the statement that tells whether there are any of these."""
    return claimable(owner, dead).limit(1)


def owned(owner: str) -> sa.Select[Any]:
    """Return the statement for the ids of an instance's live tasks."""
    return sa.select(_t.task_id).where(IS_LIVE, _t.owner == owner)


def changed(since: float, limit: int) -> Sequence[sa.Select[Any]]:
    """Return the statements for what lives, what was added, and what ended at ``since`` or later."""
    listed = sa.select(*_listed).limit(limit)
    return (
        listed.where(IS_LIVE).order_by(_t.created_at, _t.task_id),
        listed.where(_t.created_at >= since).order_by(_t.created_at.desc(), _t.task_id.desc()),
        listed.where(IS_PRUNABLE, _t.end_time >= since).order_by(_t.end_time.desc(), _t.task_id.desc()),
    )


def prunable(before: float, limit: int) -> sa.Select[Any]:
    """Return the statement for the tasks to delete: what the counters lose with them."""
    return (
        sa.select(_t.task_id, _t.func_name, _t.status, _t.start_time, _t.end_time)
        .where(IS_PRUNABLE, _t.end_time < before)
        .order_by(_t.end_time, _t.task_id)
        .limit(limit)
    )
