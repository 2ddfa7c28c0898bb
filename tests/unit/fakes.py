"""Small stand-ins for the seams, for tests of one part alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi_taskflow.entry import Entry
from fastapi_taskflow.store import WriteResult
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.record import TaskRecord, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.store import Change
    from fastapi_taskflow.task.event import TaskEvent


class RecordingStore:
    """Takes each batch down; can be held up, made to fail, and told what to refuse."""

    persistent = True
    company_warning: str | None = None

    def __init__(self) -> None:
        self.generation = 0
        self.held: dict[str, TaskRecord] = {}
        self.owned_ids: set[str] = set()
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()
        self.probes = 0
        self.probed = asyncio.Event()
        self.batches: list[list[Change]] = []
        self.errors: list[Exception] = []
        self.result = WriteResult()
        self.gate = asyncio.Event()
        self.gate.set()
        self.writing = asyncio.Event()

    async def write(self, changes: Sequence[Change]) -> WriteResult:
        """Keep the batch, once the gate is open."""
        self.writing.set()
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(list(changes))
        return self.result

    async def put_meta(self, key: str, value: str, *, expires_at: float | None = None) -> str:
        """Count the call, which fails as a write does."""
        assert key
        assert expires_at
        self.probes += 1
        if self.errors:
            raise self.errors.pop(0)
        self.probed.set()
        return value

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return what a test put into ``held``."""
        return self.held.get(task_id)

    async def owned(self, owner: str) -> frozenset[str]:
        """Return what a test had put into ``owned_ids`` when it was asked, once it may answer."""
        assert owner
        found = frozenset(self.owned_ids)
        self.asked.set()
        await self.answer.wait()
        return found

    def statuses(self) -> list[list[str]]:
        """Return the statuses of each batch."""
        return [[change.record.status.value for change in batch] for batch in self.batches]


class RecordingObserver:
    """Takes each event down."""

    def __init__(self) -> None:
        self.events: list[TaskEvent] = []

    def observe(self, event: TaskEvent) -> None:
        """Keep the event."""
        self.events.append(event)

    def kinds(self) -> list[str]:
        """Return the kinds of the events, in order."""
        return [event.kind.value for event in self.events]


async def nothing() -> None:
    """Do nothing."""


def make_entry(task_id: str = "id-1", func: Any = nothing, **changes: Any) -> Entry:
    """Return a new entry of an async function."""
    definition = TaskDefinition(name="nothing", func=func, is_async=True, code_name="tests.nothing")
    record = TaskRecord(task_id, "nothing", TaskStatus.PENDING, 1.0, owner="me", ready_at=1.0, **changes)
    return Entry(record, definition, func, (), {})
