"""Which changes a store takes: one rule for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fastapi_taskflow.store import Change
    from fastapi_taskflow.task.record import TaskRecord, TaskStatus


class Held(NamedTuple):
    """What a store holds of a task, as far as a change of it is concerned.

    Attributes:
        version: See `TaskRecord`.
        owner: See `TaskRecord`.
        created_at: See `TaskRecord`.
        status: See `TaskRecord`.
        start_time: See `TaskRecord`.
        end_time: See `TaskRecord`.
    """

    version: int
    owner: str
    created_at: float
    status: TaskStatus
    start_time: float | None
    end_time: float | None


HELD = Held._fields


def takes(change: Change, held: Held | TaskRecord) -> bool:
    """Tell whether ``change`` may be written over what is held.

    The owner is the fence: nobody but the owner writes a task, and a claim changes the owner. The version tells only
    whether a change is late. What the same owner has written since ``committed`` is an earlier try of this change: it
    was committed, and the answer got lost.
    """
    record, before = change.record, change.committed
    if before is None:
        same = held.owner == record.owner and held.created_at == record.created_at
        return same and held.version <= record.version
    if held.owner == record.owner and before.version < held.version <= record.version:
        return True
    return held.owner == before.owner and held.version < record.version
