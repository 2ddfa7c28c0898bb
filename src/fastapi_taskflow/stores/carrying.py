"""What one transaction of the user's carries: new tasks whose rows are inserted at once, or just before the commit.

The counters follow just before the commit in any case: on PostgreSQL a changed counter is locked until its transaction
ends, and every other task of the function would wait for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fastapi_taskflow import clock
from fastapi_taskflow.stores.dialects import insert
from fastapi_taskflow.stores.rows import COLUMNS, cleaned, full_row
from fastapi_taskflow.stores.schema import counters, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastapi_taskflow.store import OnCommit, Ride
    from fastapi_taskflow.task.record import TaskRecord

AT_ONCE: Final = 500
"""Ids that one statement names."""


class Seat:
    """One task in the transaction.

    Attributes:
        ride: The task.
        savepoint: The innermost savepoint that holds it; None for the transaction itself.
        inserted: Whether its row is there.
        complete: Whether its row has the time of the commit, and is counted.
    """

    __slots__ = ("complete", "inserted", "ride", "savepoint")

    def __init__(self, ride: Ride, savepoint: object) -> None:
        self.ride = ride
        self.savepoint = savepoint
        self.inserted = False
        self.complete = False


class Book:
    """The seats of one session or connection in its current transaction.

    Args:
        on_commit: Told of what is committed.
    """

    def __init__(self, on_commit: OnCommit) -> None:
        self.on_commit = on_commit
        self.seats: list[Seat] = []

    @property
    def incomplete(self) -> bool:
        """Whether something is to be written before the commit."""
        return any(not seat.complete for seat in self.seats)

    def take(self, ride: Ride, savepoint: object) -> None:
        """Take a task whose row is inserted at the commit."""
        self.seats.append(Seat(ride, savepoint))

    def insert(self, connection: sa.Connection, ride: Ride, savepoint: object = None) -> bool:
        """Insert the row of a task now; return False if its key is taken."""
        seat = Seat(ride, savepoint)
        seat.inserted = insert_rows(connection, [ride.record]) == 1
        if seat.inserted:
            self.seats.append(seat)
        return seat.inserted

    def complete(self, connection: sa.Connection) -> None:
        """Write what is still to be written in the transaction that is about to be committed.

        The tasks get this time as that of their creation, however long the transaction took: now others see them.
        """
        now = clock.now()
        early = _still_there(connection, [seat for seat in self.seats if seat.inserted and not seat.complete])
        late = [seat for seat in self.seats if not seat.inserted]
        for seat in early + late:
            seat.ride.record = seat.ride.record._replace(created_at=now, ready_at=now)
        _insert_late(connection, late)
        _date(connection, [seat.ride.record.task_id for seat in early], now)
        _count(connection, [seat.ride.record.task_id for seat in early + late if seat.inserted])
        for seat in early + late:
            seat.complete = True
        self.seats = [seat for seat in self.seats if seat.inserted and seat.complete]

    def promote(self, savepoint: object, outer: object) -> None:
        """Let what a savepoint held, which was released, belong to the one around it."""
        for seat in self.seats:
            if seat.savepoint == savepoint:
                seat.savepoint = outer

    def drop(self, savepoint: object) -> None:
        """Forget what a savepoint held that was rolled back."""
        self.seats = [seat for seat in self.seats if seat.savepoint != savepoint]

    def clear(self) -> None:
        """Forget everything: the transaction was rolled back."""
        self.seats = []

    def hand_over(self, under_way: Callable[[], bool]) -> None:
        """Tell of the commit; ``under_way`` says whether it is still going on."""
        rides = [seat.ride for seat in self.seats]
        self.clear()
        if rides:
            self.on_commit(rides, under_way)


# -- statements ------------------------------------------------------------------------------------------------------


def insert_rows(connection: sa.Connection, records: Sequence[TaskRecord]) -> int:
    """Insert rows, but for those whose key is taken; return how many, if it was to be one."""
    rows: list[dict[str, Any]] = []
    for record in records:
        # Cleaned in any case: a value that the database refuses would cost the user his transaction.
        row = dict(zip(COLUMNS, cleaned(full_row(record)), strict=True))
        row["requeue_on_interrupt"] = record.requeue_on_interrupt
        rows.append(row)
    statement = insert(connection, tasks).on_conflict_do_nothing()
    return connection.execute(statement, rows if len(rows) > 1 else rows[0]).rowcount


def _insert_late(connection: sa.Connection, seats: Sequence[Seat]) -> None:
    keyless = [seat for seat in seats if seat.ride.record.idempotency_key is None]
    if keyless:
        insert_rows(connection, [seat.ride.record for seat in keyless])
    for seat in seats:
        keyed = seat.ride.record.idempotency_key is not None
        seat.inserted = not keyed or insert_rows(connection, [seat.ride.record]) == 1


def _still_there(connection: sa.Connection, seats: Sequence[Seat]) -> list[Seat]:
    """Return those whose rows no savepoint took away; a row that has the same key since then is another one."""
    found: dict[str, float] = {}
    for some in _portions([seat.ride.record.task_id for seat in seats]):
        statement = sa.select(tasks.c.task_id, tasks.c.created_at).where(tasks.c.task_id.in_(some))
        found |= {row.task_id: row.created_at for row in connection.execute(statement)}
    return [seat for seat in seats if found.get(seat.ride.record.task_id) == seat.ride.record.created_at]


def _date(connection: sa.Connection, ids: Sequence[str], now: float) -> None:
    for some in _portions(ids):
        connection.execute(sa.update(tasks).where(tasks.c.task_id.in_(some)).values(created_at=now, ready_at=now))


def _count(connection: sa.Connection, ids: Sequence[str]) -> None:
    for some in _portions(ids):
        new = (
            sa.select(tasks.c.func_name, tasks.c.status, sa.func.count())
            .where(tasks.c.task_id.in_(some))
            .group_by(tasks.c.func_name, tasks.c.status)
            .order_by(tasks.c.func_name)  # two transactions lock the counters in the same order
        )
        statement = insert(connection, counters).from_select(["func_name", "status", "count"], new)
        total = counters.c.count + statement.excluded.count
        connection.execute(
            statement.on_conflict_do_update(index_elements=["func_name", "status"], set_={"count": total})
        )


def _portions(ids: Sequence[str]) -> Sequence[Sequence[str]]:
    return [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)]
