"""One batch of changes as rows, and their way into SQLite: the hot path of the writer thread.

Measured on one core, µs a change (an insert, then an update), for batches of 1, 10 and 100: 80, 22 and 15; beside a
busy event loop 190, 46 and 28, since each statement hands the GIL over twice; a trace id adds 4 to 12. So there is one
INSERT for all new rows, counters are summed up here, and a batch of new rows takes four statements. Two other ways were
no faster from batches of 4 on: the whole batch as one statement on a view with triggers, and counters as rows of it.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.store import WriteResult
from fastapi_taskflow.stores.durations import TIMED, timed
from fastapi_taskflow.stores.rows import Row, birth_row, cleaned, state_row
from fastapi_taskflow.stores.sqlite import ADD_COUNT, ADD_DURATION, INSERT_TASKS, MULTI_ROWS, UPDATE_TASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.store import Change

logger = logging.getLogger("fastapi_taskflow.stores")

ALL_WRITTEN: Final = WriteResult()
_REFUSED_VALUES: Final = (UnicodeEncodeError, OverflowError, sqlite3.IntegrityError, sqlite3.InterfaceError)
"""What one row's values, not the database, are to blame for."""
_TOO_BIG: Final = (sqlite3.DataError, sqlite3.ProgrammingError, *_REFUSED_VALUES)


def write_batch(db: sqlite3.Connection, changes: Sequence[Change]) -> WriteResult:
    """Commit ``changes`` in one transaction.

    Raises:
        sqlite3.Error: If the database fails; then nothing of it was kept.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            all_written = _write_together(db, changes)
        except _TOO_BIG:
            all_written = False
        result = ALL_WRITTEN
        if not all_written:
            # Rare: somebody was first with a key, a lease was lost, or a value is refused. Look at each row.
            db.execute("ROLLBACK")
            db.execute("BEGIN IMMEDIATE")
            result = _write_one_by_one(db, changes)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result


def _write_together(db: sqlite3.Connection, changes: Sequence[Change]) -> bool:
    new: list[Any] = []
    new_count = 0
    updates: list[Row] = []
    for change in changes:
        committed = change.committed
        if committed is None:
            new += birth_row(change.record)
            new += state_row(change.record)
            new_count += 1
            if new_count == MULTI_ROWS:
                if db.execute(INSERT_TASKS[new_count], new).rowcount != new_count:
                    return False
                new, new_count = [], 0
        else:
            updates.append((*state_row(change.record), committed.task_id, committed.version, committed.owner))
    if new_count and db.execute(INSERT_TASKS[new_count], new).rowcount != new_count:
        return False
    if len(updates) == 1:
        if db.execute(UPDATE_TASK, updates[0]).rowcount != 1:
            return False
    elif updates and db.executemany(UPDATE_TASK, updates).rowcount != len(updates):
        return False
    _count(db, changes)
    return True


def _write_one_by_one(db: sqlite3.Connection, changes: Sequence[Change]) -> WriteResult:
    duplicates: set[str] = set()
    stale: set[str] = set()
    written: list[Change] = []
    for change in changes:
        record, committed = change.record, change.committed
        if committed is None:
            done = _try_row(db, INSERT_TASKS[1], birth_row(record) + state_row(record))
        else:
            row = (*state_row(record), committed.task_id, committed.version, committed.owner)
            done = _try_row(db, UPDATE_TASK, row)
        if done:
            written.append(change)
        else:
            (duplicates if committed is None else stale).add(record.task_id)
    _count(db, written)
    return WriteResult(frozenset(duplicates), frozenset(stale))


def _try_row(db: sqlite3.Connection, statement: str, row: Row) -> bool:
    try:
        return db.execute(statement, row).rowcount == 1
    except _REFUSED_VALUES:
        pass
    try:
        return db.execute(statement, cleaned(row)).rowcount == 1
    except _TOO_BIG as error:
        # Raising here would hold up every other task for ever, since the batch would be tried again as it is.
        logger.error("a task cannot be stored and is dropped: %s", error)  # noqa: TRY400 - the cause is in the text
        return False


def _count(db: sqlite3.Connection, changes: Sequence[Change]) -> None:
    counts: dict[tuple[str, str], int] = {}
    times: dict[tuple[str, int], list[float]] = {}
    for change in changes:
        record, committed = change.record, change.committed
        func_name, status = record.func_name, record.status._value_
        if committed is not None:
            was = committed.status._value_
            if was != status:
                counts[func_name, was] = counts.get((func_name, was), 0) - 1
                counts[func_name, status] = counts.get((func_name, status), 0) + 1
            if was in TIMED:
                _add_time(times, func_name, -1, timed(was, committed.start_time, committed.end_time))
        else:
            counts[func_name, status] = counts.get((func_name, status), 0) + 1
        if status in TIMED:
            _add_time(times, func_name, 1, timed(status, record.start_time, record.end_time))
    rows = [cleaned((*key, count)) for key, count in counts.items() if count]
    if rows:
        db.executemany(ADD_COUNT, rows)
    if times:
        db.executemany(ADD_DURATION, [cleaned((*key, *total)) for key, total in times.items()])


def _add_time(
    times: dict[tuple[str, int], list[float]], func_name: str, sign: int, entry: tuple[int, float] | None
) -> None:
    if entry is not None:
        total = times.setdefault((func_name, entry[0]), [0, 0.0])
        total[0] += sign
        total[1] += sign * entry[1]
