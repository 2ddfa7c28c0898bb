"""The audit log: who did what, when, and from where."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fastapi_taskflow.stores.dialects import insert
from fastapi_taskflow.stores.schema import audit

if TYPE_CHECKING:
    from fastapi_taskflow.store import Act


def add(connection: sa.Connection, act: Act) -> None:
    """Add an act; one that is there already stays as it is."""
    connection.execute(insert(connection, audit).values(asdict(act)).on_conflict_do_nothing(index_elements=["act_id"]))


def newest(target: str | None, before: str | None, limit: int) -> sa.Select[Any]:
    """Return the statement for acts, newest first."""
    statement = sa.select(audit).order_by(audit.c.act_id.desc()).limit(limit)
    if target is not None:
        statement = statement.where(audit.c.target == target)
    return statement if before is None else statement.where(audit.c.act_id < before)


def prune(connection: sa.Connection, *, before: float, limit: int) -> int:
    """Delete at most ``limit`` acts done before; return how many."""
    # Ids are in the order of time, so the oldest are at the beginning of the primary key.
    oldest = sa.select(audit.c.act_id).where(audit.c.at < before).order_by(audit.c.act_id).limit(limit)
    return connection.execute(sa.delete(audit).where(audit.c.act_id.in_(oldest.scalar_subquery()))).rowcount
