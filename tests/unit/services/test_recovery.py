"""What becomes of the tasks of a dead instance."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from fastapi_taskflow.engines.local import LocalEngine
from fastapi_taskflow.journal import Journal
from fastapi_taskflow.services.heartbeat import this_instance
from fastapi_taskflow.services.recovery import POISON, Recovery
from fastapi_taskflow.settings import Settings
from fastapi_taskflow.task import payload
from fastapi_taskflow.task.call import Calls
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.record import TaskRecord, TaskStatus
from fastapi_taskflow.task.registry import Registry
from tests.unit.fakes import RecordingObserver, RecordingStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.store import Instance

ran: list[str] = []


async def note(what: str) -> None:
    """Take it down."""
    ran.append(what)


class LeftStore(RecordingStore):
    """Holds what a dead instance left."""

    def __init__(self, records: Sequence[TaskRecord], instances: Sequence[Instance] = ()) -> None:
        super().__init__()
        self.left = list(records)
        self.rows = list(instances)
        self.forgotten: list[str] = []

    async def instances(self) -> Sequence[Instance]:
        """Return the rows."""
        return self.rows

    async def orphans(self, live: frozenset[str], *, limit: int) -> Sequence[TaskRecord]:
        """Return what is left, once."""
        found = [record for record in self.left if record.owner not in live][:limit]
        self.left = [record for record in self.left if record not in found]
        return found

    async def forget(self, instance_id: str) -> None:
        """Take it down."""
        self.forgotten.append(instance_id)


def left(**changes: Any) -> TaskRecord:
    """Return a pending record of a dead instance."""
    text = payload.encode(note, ("hello",), {})
    base = TaskRecord(
        "id", "note", TaskStatus.PENDING, 1.0, owner="dead", payload=text, target=f"{__name__}:note", ready_at=1.0
    )
    return base._replace(**changes)


async def sweep(
    record: TaskRecord, *, settings: Settings | None = None, definition: TaskDefinition | None = None
) -> tuple[TaskRecord, list[str]]:
    """Return what the record became, and what was told."""
    ran.clear()
    settings = settings or Settings()
    store, told, registry, engine = LeftStore([record]), RecordingObserver(), Registry(), LocalEngine(None)
    registry.add(
        definition or TaskDefinition(name="note", func=note, is_async=True, code_name=f"{__name__}.note", declared=True)
    )
    journal = Journal(store, [told], max_backlog=100)  # type: ignore[arg-type]
    me = this_instance()
    started: list[Any] = []

    async def run(entry: Any) -> None:
        started.append(entry)
        await entry.func(*entry.args, **entry.kwargs)

    journal.start()
    engine.start(run)
    calls = Calls(registry)
    recovery = Recovery(store, journal, engine, registry, calls, settings=settings, me=me)  # type: ignore[arg-type]
    assert await recovery.sweep() == 1
    async with asyncio.timeout(5):
        while store.batches[0][0].record.status is TaskStatus.PENDING and not started:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await engine.stop(within=1)
    await journal.stop(within=1)
    (change,) = store.batches[0]
    assert change.committed == record
    assert bool(started) == (change.record.status is TaskStatus.PENDING)
    return change.record, told.kinds()


async def test_pending_runs_again_with_requeue_pending() -> None:
    """Its arguments come from the store."""
    record, told = await sweep(left(), settings=Settings(requeue_pending=True))
    assert (record.status, record.recoveries, ran, told) == (TaskStatus.PENDING, 0, ["hello"], ["recovered"])


async def test_pending_runs_again_with_persist() -> None:
    """One task may want what the manager does not."""
    definition = TaskDefinition(name="note", func=note, is_async=True, code_name=f"{__name__}.note", persist=True)
    record, _ = await sweep(left(), definition=definition)
    assert (record.status, ran) == (TaskStatus.PENDING, ["hello"])


async def test_without_requeue_it_is_interrupted() -> None:
    """An operator decides."""
    record, told = await sweep(left())
    assert (record.status, record.error) == (TaskStatus.INTERRUPTED, "its process stopped while it waited")
    assert told == ["recovered", "finished"]


async def test_running_runs_again_only_if_it_may() -> None:
    """requeue_pending is not enough: it may have done half of its work."""
    running = left(status=TaskStatus.RUNNING, attempt=1, start_time=2.0)
    record, _ = await sweep(running, settings=Settings(requeue_pending=True))
    assert (record.status, record.error) == (TaskStatus.INTERRUPTED, "its process stopped while it ran")
    record, _ = await sweep(running._replace(requeue_on_interrupt=True))
    assert (record.status, len(record.attempts), ran) == (TaskStatus.PENDING, 1, ["hello"])


async def test_a_task_that_stops_its_process_again_and_again_is_parked() -> None:
    """It must not take the service down for ever."""
    waited = left(recoveries=3, requeue_on_interrupt=True)
    record, _ = await sweep(waited._replace(status=TaskStatus.RUNNING, attempt=4, start_time=2.0))
    assert (record.status, record.error_type) == (TaskStatus.FAILED, POISON)
    assert "stopped 4 times" in (record.error or "")
    record, _ = await sweep(waited, settings=Settings(requeue_pending=True))
    assert (record.status, ran) == (TaskStatus.PENDING, ["hello"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"target": None, "func_name": "closure"}, "cannot be found again"),
        ({"target": "no.such:thing", "func_name": "gone"}, r"gone' \(no.such:thing\) cannot be found again"),
        ({"payload": None}, "cannot be found again"),
        ({"payload": "not json"}, "."),
    ],
)
async def test_what_cannot_be_called_again_is_interrupted(changes: dict[str, Any], text: str) -> None:
    """It says why, and stays visible."""
    record, _ = await sweep(left(**changes), settings=Settings(requeue_pending=True))
    assert record.status is TaskStatus.INTERRUPTED
    assert re.search(text, record.error or "")
