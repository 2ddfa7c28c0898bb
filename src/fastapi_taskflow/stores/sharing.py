"""What several instances share through the database: dead ones' tasks, requests to cancel, and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fastapi_taskflow.store import OWNERLESS_GRACE
from fastapi_taskflow.stores.dialects import insert
from fastapi_taskflow.stores.queries import WHOLE, claimable
from fastapi_taskflow.stores.schema import IS_LIVE, cancels, instances, numbers, tasks
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_t = tasks.c


def claim(
    connection: sa.Connection, owner: str, dead: Mapping[str, float], *, now: float, limit: int
) -> Sequence[sa.Row[Any]]:
    """Make ``owner`` the owner of tasks of nobody who lives; return their rows, oldest first."""
    # Locked, so that one that comes back to life beats after this, and sees then what it has lost. In one order, so
    # that two that claim at once do not wait for each other.
    known = sa.select(instances.c.instance_id, instances.c.heartbeat_at).order_by(instances.c.instance_id)
    beats = connection.execute(known.with_for_update()).all()
    silent = [instance_id for instance_id, beat in beats if beat == dead.get(instance_id)]
    # Who lives is asked again, together with the tasks: an instance may have come since.
    chosen = (
        claimable(owner, silent)
        .where(sa.or_(_t.owner != "", _t.created_at < now - OWNERLESS_GRACE))
        .order_by(_t.created_at, _t.task_id)
        .limit(limit)
        .with_for_update(skip_locked=True)  # where transactions do not exclude each other anyway, as in SQLite
    )
    ids = connection.execute(chosen).scalars().all()
    if not ids:
        return ()
    connection.execute(sa.update(tasks).where(_t.task_id.in_(ids)).values(owner=owner, version=_t.version + 1))
    return connection.execute(sa.select(*WHOLE).where(_t.task_id.in_(ids)).order_by(_t.created_at, _t.task_id)).all()


def take(connection: sa.Connection, task_id: str, of: str, owner: str) -> sa.Row[Any] | None:
    """Make ``owner`` the owner of a pending task of ``of``; return its row, or None if there is no such task."""
    mine = (_t.task_id == task_id, _t.status == TaskStatus.PENDING.value)
    new = sa.update(tasks).where(*mine, _t.owner == of).values(owner=owner, version=_t.version + 1)
    if connection.execute(new).rowcount == 0:
        return None
    return connection.execute(sa.select(*WHOLE).where(_t.task_id == task_id)).one()


def ask_to_cancel(connection: sa.Connection, task_id: str, now: float) -> None:
    """Leave a request for the owner of a task."""
    row = insert(connection, cancels).values(task_id=task_id, asked_at=now)
    connection.execute(row.on_conflict_do_nothing())


ASKED = sa.select(cancels.c.task_id).limit(1)


def asked_to_cancel(connection: sa.Connection, owner: str) -> Sequence[str]:
    """Take the requests for an instance's tasks, and drop those for tasks that have ended."""
    waiting = sa.select(_t.task_id).where(_t.task_id.in_(sa.select(cancels.c.task_id)), IS_LIVE)
    connection.execute(sa.delete(cancels).where(cancels.c.task_id.not_in(waiting)))
    mine = connection.execute(waiting.where(_t.owner == owner)).scalars().all()
    if mine:
        connection.execute(sa.delete(cancels).where(cancels.c.task_id.in_(mine)))
    return mine


def save_numbers(
    connection: sa.Connection, instance_id: str, host: str, text: str, now: float | sa.ColumnElement[float]
) -> None:
    """Keep an instance's metrics in place of its earlier ones."""
    row = insert(connection, numbers).values(host=host, instance_id=instance_id, numbers=text, saved_at=now)
    changed = {"numbers": row.excluded.numbers, "saved_at": row.excluded.saved_at}
    connection.execute(row.on_conflict_do_update(index_elements=["host", "instance_id"], set_=changed))


def merge_numbers(
    connection: sa.Connection,
    host: str,
    gone: Sequence[str],
    into: str,
    merge: Callable[[Sequence[str]], str],
    *,
    now: float | sa.ColumnElement[float],
) -> None:
    """Put the metrics of instances that are gone together."""
    n = numbers.c
    others = (n.host == host, n.instance_id.in_([each for each in gone if each != into]))
    if connection.execute(sa.select(n.instance_id).where(*others).limit(1)).first() is None:
        return
    # Whoever writes the sum's row first, new or not, keeps everybody else from doing so until the end. What is read
    # after that is what they have left.
    row = insert(connection, numbers).values(host=host, instance_id=into, numbers="", saved_at=now)
    mine = row.on_conflict_do_update(index_elements=["host", "instance_id"], set_={"saved_at": row.excluded.saved_at})
    connection.execute(mine)
    found = connection.execute(sa.select(n.instance_id, n.numbers).where(*others).with_for_update()).all()
    sum_row = (n.host == host, n.instance_id == into)
    so_far = connection.execute(sa.select(n.numbers).where(*sum_row)).scalar_one()
    texts = [*([so_far] if so_far else []), *(each.numbers for each in found)]
    connection.execute(sa.update(numbers).where(*sum_row).values(numbers=merge(texts)))
    taken = [each.instance_id for each in found]
    connection.execute(sa.delete(numbers).where(n.host == host, n.instance_id.in_(taken)))


def forget_numbers(connection: sa.Connection, before: float | sa.ColumnElement[float]) -> None:
    """Delete the metrics of hosts where no instance lives and nothing was saved at ``before`` or later."""
    n = numbers.c
    kept = sa.select(n.host).where(n.saved_at >= before).union(sa.select(instances.c.host))
    connection.execute(sa.delete(numbers).where(n.host.not_in(kept)))
