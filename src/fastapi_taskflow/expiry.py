"""Tasks that may not start after a certain time: cancelled then, wherever they wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.kept_calls import KeptCalls

REASON: Final = "it had not started when its time was over, at {}"


class Expiry:
    """Ends tasks whose time is over. Only the first start counts: a retry may come later.

    Args:
        journal: Where records go.
        kept: Keeps the calls of what is ended.
    """

    def __init__(self, journal: Journal, kept: KeptCalls) -> None:
        self._journal = journal
        self._kept = kept

    def mind(self, entry: Entry) -> None:
        """Have a task ended when its time is over, if it has one and has not started by then."""
        expires_at = entry.record.expires_at
        if expires_at is not None and not entry.record.attempt and entry.expiry is None:
            entry.expiry = clock.call_at(expires_at, self._look, entry)

    def _look(self, entry: Entry) -> None:
        entry.expiry = None
        if self._journal.running and self._journal.live.get(entry.record.task_id) is entry:
            self.ends(entry, clock.now())

    def ends(self, entry: Entry, now: float) -> bool:
        """End a task that has not started and whose time is over; return whether it is so."""
        record = entry.record
        if record.expires_at is None or record.attempt or record.status is not TaskStatus.PENDING:
            return False
        expiry, entry.expiry = entry.expiry, None
        if expiry is not None:
            expiry.cancel()
        if now < record.expires_at:
            return False
        record = lifecycle.cancel(record, at=now, reason=REASON.format(clock.to_iso(record.expires_at)))
        self._journal.append(entry, record)
        self._journal.publish(TaskEvent(EventKind.FINISHED, record, now))
        entry.leave()
        self._kept.keep(entry)
        return True
