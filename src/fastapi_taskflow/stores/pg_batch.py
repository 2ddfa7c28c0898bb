"""One batch of changes on its way into PostgreSQL: one statement, with a column of all rows as each parameter.

It is one statement, so that the server commits it without another word from this side: a process that is stopped in
between would keep the counters locked, and every other instance waits for these. A change that is not as expected makes
the statement fail; then each row is looked at, in a transaction.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fastapi_taskflow.store import WriteResult
from fastapi_taskflow.stores.fence import HELD, Held, takes
from fastapi_taskflow.stores.pg import LIMITS, is_refusal
from fastapi_taskflow.stores.rows import COLUMNS, STATE, birth_row, cleaned, state_row
from fastapi_taskflow.stores.schema import counters, durations, tasks
from fastapi_taskflow.stores.tally import tally
from fastapi_taskflow.stores.text import StoredText, without_nul
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastapi_taskflow.store import Change
    from fastapi_taskflow.stores.pg import Driver
    from fastapi_taskflow.stores.rows import Row
    from fastapi_taskflow.task.record import TaskRecord

logger = logging.getLogger("fastapi_taskflow.stores")

ALL_WRITTEN: Final = WriteResult()
_TYPES: Final[Mapping[type[Any], str]] = {
    sa.SmallInteger: "smallint",
    sa.Integer: "integer",
    sa.BigInteger: "bigint",
    sa.Double: "double precision",
    sa.Boolean: "boolean",
    StoredText: "text",
}
_MOST_INTEGER: Final = 2**31 - 1
_FLAG: Final = STATE.index("requeue_on_interrupt")


async def write_batch(driver: Driver, changes: Sequence[Change], *, pooled: bool) -> WriteResult:
    """Commit ``changes`` in one transaction.

    Args:
        driver: In no transaction.
        changes: At least one.
        pooled: Whether a pooler is between, which keeps statements together in a transaction only.
    """
    try:
        statement, parameters = whole(changes)
        if pooled:
            async with driver.transaction():
                await driver.execute(LIMITS)
                await driver.fetch(statement, *parameters)
        else:
            await driver.fetch(statement, *parameters)
    except Exception as error:
        if not is_refusal(error):
            raise
    else:
        return ALL_WRITTEN
    # Rare: somebody was first with a key, a lease was lost, an earlier try was committed after all, or a value is
    # refused. Look at each row.
    async with driver.transaction():
        if pooled:
            await driver.execute(LIMITS)
        return await _write_one_by_one(driver, changes)


# -- all together ----------------------------------------------------------------------------------------------------


def whole(changes: Sequence[Change]) -> tuple[str, list[Sequence[Any]]]:
    """Return the statement that writes all of it, and its parameters."""
    new: list[Row] = []
    changed: list[Row] = []
    for change in changes:
        before = change.committed
        if before is None:
            new.append(birth_row(change.record) + _state(change.record))
        else:
            changed.append((*_state(change.record), before.task_id, before.version, before.owner))
    # In one order for everybody, so that two who wait for the same keys do not wait for each other.
    new.sort(key=_first)
    counts, times = tally((change.record, change.committed) for change in changes)
    parameters: list[Sequence[Any]] = []
    for rows in (new, changed, _count_rows(counts), _time_rows(times)):
        parameters += zip(*rows, strict=True)
    return _statement(bool(new), bool(changed), any(counts.values()), bool(times)), parameters


def _first(row: Row) -> Any:
    return row[0]


def _state(record: TaskRecord) -> Row:
    row = state_row(record)
    return (*row[:_FLAG], record.requeue_on_interrupt, *row[_FLAG + 1 :])


def _count_rows(counts: dict[tuple[str, str], int]) -> Sequence[Row]:
    return [(*key, count) for key, count in sorted(counts.items()) if count]


def _time_rows(times: dict[tuple[str, int], list[float]]) -> Sequence[Row]:
    return [(*key, int(number), seconds) for key, (number, seconds) in sorted(times.items())]


@cache
def _statement(new: bool, changed: bool, counted: bool, timed: bool) -> str:  # noqa: FBT001
    """Return the statement for a batch that has these parts."""
    place = _Places()
    parts: list[str] = []
    all_there: list[str] = []
    for name, there, text in (("born", new, _insert), ("changed", changed, _update)):
        if there:
            all_there.append(f"(SELECT count(*) FROM {name}) = cardinality({place.next})")  # noqa: S608 - our own names
            parts.append(f"{name} AS ({text(place)} RETURNING 1)")
    parts.append(f"complete AS (SELECT {' AND '.join(all_there)} AS yes)")
    # Counters come after the tasks, and durations after the counters, as with everybody who locks both.
    first = f"{_COUNT_TEXT.format(rows=place.rows(_COUNT_COLUMNS))} RETURNING 1" if counted else "SELECT 1"
    parts.append(f"counted AS ({first})")
    if timed:
        parts.append(f"timed AS ({_TIME_TEXT.format(rows=place.rows(_TIME_COLUMNS))} RETURNING 1)")
    whole = "WITH " + ", ".join(parts)
    # The division by zero undoes all of it.
    return f"{whole} SELECT 1 / (CASE WHEN yes THEN 1 ELSE 0 END) FROM complete"  # noqa: S608 - our own names


class _Places:
    """Numbers the parameters."""

    def __init__(self) -> None:
        self._number = 1

    @property
    def next(self) -> str:
        """The next one."""
        return f"${self._number}"

    def rows(self, columns: Iterable[sa.Column[Any]]) -> str:
        """Return the rows made of one parameter for each column."""
        arrays = []
        for column in columns:
            arrays.append(f"{self.next}::{_type(column)}[]")
            self._number += 1
        return f"unnest({', '.join(arrays)})"


def _type(column: sa.Column[Any]) -> str:
    return _TYPES[type(column.type)]


def _insert(place: _Places) -> str:
    rows = place.rows(tasks.c[name] for name in COLUMNS)
    return f"INSERT INTO {tasks.name} ({', '.join(COLUMNS)}) SELECT * FROM {rows} ON CONFLICT DO NOTHING"  # noqa: S608


def _update(place: _Places) -> str:
    rows = place.rows([*(tasks.c[name] for name in STATE), tasks.c.task_id, tasks.c.version, tasks.c.owner])
    names = ", ".join([f"new_{name}" for name in STATE] + ["id", "old_version", "old_owner"])
    values = ", ".join(f"{name} = new_{name}" for name in STATE)
    return (
        f"UPDATE {tasks.name} SET {values} FROM {rows} AS given({names})"  # noqa: S608 - our own names
        " WHERE task_id = id AND version = old_version AND owner = old_owner"
    )


_COUNT_COLUMNS: Final = list(counters.c)
_TIME_COLUMNS: Final = list(durations.c)
_COUNT_TEXT: Final = (
    f"INSERT INTO {counters.name} AS held (func_name, status, count)"  # noqa: S608 - our own names
    " SELECT * FROM {rows} WHERE (SELECT yes FROM complete)"
    " ON CONFLICT (func_name, status) DO UPDATE SET count = held.count + excluded.count"
)
_TIME_TEXT: Final = (
    f"INSERT INTO {durations.name} AS held (func_name, bucket, count, seconds)"  # noqa: S608 - our own names
    " SELECT * FROM {rows} WHERE (SELECT yes FROM complete) AND (SELECT count(*) FROM counted) >= 0"
    " ON CONFLICT (func_name, bucket) DO UPDATE"
    " SET count = held.count + excluded.count, seconds = held.seconds + excluded.seconds"
)


# -- one by one ------------------------------------------------------------------------------------------------------

_HELD_OF: Final = (
    f"SELECT task_id, {', '.join(HELD)} FROM {tasks.name} WHERE task_id = ANY($1::text[])"  # noqa: S608
    " ORDER BY task_id FOR UPDATE"
)


def _placeholders(columns: Sequence[sa.Column[Any]], first: int = 1) -> list[str]:
    return [f"${place}::{_type(column)}" for place, column in enumerate(columns, first)]


_INSERT_ONE: Final = (
    f"INSERT INTO {tasks.name} ({', '.join(COLUMNS)})"  # noqa: S608 - our own names
    f" VALUES ({', '.join(_placeholders([tasks.c[name] for name in COLUMNS]))}) ON CONFLICT DO NOTHING RETURNING 1"
)
_STATE_PLACES: Final = _placeholders([tasks.c[name] for name in STATE])
_UPDATE_ONE: Final = (
    f"UPDATE {tasks.name} SET {', '.join(f'{name} = {at}' for name, at in zip(STATE, _STATE_PLACES, strict=True))}"  # noqa: S608
    f" WHERE task_id = ${len(STATE) + 1} RETURNING 1"
)
_ADD_COUNTS: Final = _COUNT_TEXT.replace(" WHERE (SELECT yes FROM complete)", "")
_ADD_TIMES: Final = _TIME_TEXT.replace(" WHERE (SELECT yes FROM complete) AND (SELECT count(*) FROM counted) >= 0", "")


async def _write_one_by_one(driver: Driver, changes: Sequence[Change]) -> WriteResult:
    duplicates: set[str] = set()
    stale: set[str] = set()
    written: list[tuple[TaskRecord, TaskRecord | Held | None]] = []
    known = await _held(driver, [change.record.task_id for change in changes])
    for change in changes:
        record = change.record
        task_id = without_nul(record.task_id)
        held = known.get(task_id)
        done = False
        if held is None and change.committed is None:
            done = await _try_row(driver, _INSERT_ONE, COLUMNS, birth_row(record) + _state(record))
            if not done:  # somebody has inserted it since
                held = (await _held(driver, [record.task_id])).get(task_id)
        if held is not None and takes(change, held):
            done = await _try_row(driver, _UPDATE_ONE, (*STATE, "task_id"), (*_state(record), task_id))
        if done:
            written.append((record, held))
            known[task_id] = _as_held(record)
        else:
            (duplicates if change.committed is None else stale).add(record.task_id)
    await _count(driver, written)
    return WriteResult(frozenset(duplicates), frozenset(stale))


def _as_held(record: TaskRecord) -> Held:
    return Held(*(getattr(record, name) for name in HELD))


async def _held(driver: Driver, task_ids: Sequence[str]) -> dict[str, Held]:
    rows = await driver.fetch(_HELD_OF, [without_nul(task_id) for task_id in task_ids])
    found = {row[0]: Held(*row[1:]) for row in map(tuple, rows)}
    return {task_id: held._replace(status=TaskStatus(held.status)) for task_id, held in found.items()}


async def _try_row(driver: Driver, statement: str, columns: Sequence[str], row: Row) -> bool:
    try:
        async with driver.transaction():
            return bool(await driver.fetch(statement, *row))
    except Exception as error:
        if not is_refusal(error):
            raise
    try:
        async with driver.transaction():
            return bool(await driver.fetch(statement, *map(_fitting, columns, cleaned(row))))
    except Exception as error:
        if not is_refusal(error):
            raise
        # Raising here would hold up every other task for ever, since the batch would be tried again as it is.
        logger.error("a task cannot be stored and is dropped: %s", error)  # noqa: TRY400 - the cause is in the text
        return False


def _fitting(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return without_nul(value)
    kind = tasks.c[name].type
    if isinstance(value, int) and isinstance(kind, sa.Integer) and not isinstance(kind, sa.BigInteger):
        return max(-_MOST_INTEGER - 1, min(_MOST_INTEGER, value))
    if isinstance(kind, sa.Boolean):
        return bool(value)
    return value


async def _count(driver: Driver, steps: Iterable[tuple[TaskRecord, TaskRecord | Held | None]]) -> None:
    counts, times = tally(
        (record._replace(func_name=without_nul(record.func_name)), before) for record, before in steps
    )
    for text, columns, rows in (
        (_ADD_COUNTS, _COUNT_COLUMNS, _count_rows(counts)),
        (_ADD_TIMES, _TIME_COLUMNS, _time_rows(times)),
    ):
        if rows:
            await driver.fetch(text.format(rows=_Places().rows(columns)), *zip(*rows, strict=True))
