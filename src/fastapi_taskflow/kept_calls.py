"""Calls that the store alone cannot make again, kept for a retry by hand."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.task.record import RETRYABLE

if TYPE_CHECKING:
    from fastapi_taskflow.entry import Entry

MOST: Final = 1_000


class KeptCalls:
    """The newest calls of unsuccessful tasks whose arguments or function are in this process only; at most `MOST`."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def keep(self, entry: Entry) -> None:
        """Remember the call of a task that has ended, if that is needed to make it again."""
        record = entry.record
        stored = record.payload is not None and (record.target is not None or entry.definition.declared)
        if stored or record.status not in RETRYABLE:
            return
        self._entries[record.task_id] = entry
        if len(self._entries) > MOST:
            self._entries.popitem(last=False)

    def get(self, task_id: str) -> Entry | None:
        """Return the entry of a task that was kept, or None."""
        return self._entries.get(task_id)
