"""What becomes of the tasks of a dead instance."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

from fastapi_taskflow.engines.local import LocalEngine
from fastapi_taskflow.errors import StoreUnavailableError
from fastapi_taskflow.expiry import Expiry
from fastapi_taskflow.journal import Journal
from fastapi_taskflow.kept_calls import KeptCalls
from fastapi_taskflow.lease import Lease
from fastapi_taskflow.services.heartbeat import this_instance
from fastapi_taskflow.services.liveness import Liveness
from fastapi_taskflow.services.recovery import POISON, Recovery
from fastapi_taskflow.services.turns import Turns
from fastapi_taskflow.settings import Settings
from fastapi_taskflow.store import OWNERLESS_GRACE, Instance
from fastapi_taskflow.task import payload
from fastapi_taskflow.task.call import Calls
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.queue import QueueConfig
from fastapi_taskflow.task.record import TaskRecord, TaskStatus
from fastapi_taskflow.task.registry import Registry
from fastapi_taskflow.task.schedule import Schedules
from tests.unit.fakes import RecordingObserver, RecordingStore, make_entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi_taskflow.entry import Entry

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
        self.forgotten: list[tuple[str, float | None]] = []

    async def instances(self) -> Sequence[Instance]:
        """Return the rows."""
        return self.rows

    async def claim(self, owner: str, dead: Mapping[str, float], *, limit: int) -> Sequence[TaskRecord]:
        """Hand over what is left, once."""
        if self.errors:
            raise self.errors.pop(0)
        found = [record.evolve(owner=owner) for record in self.left if self.is_free(record.owner, dead)][:limit]
        ids = {record.task_id for record in found}
        self.left = [record for record in self.left if record.task_id not in ids]
        return found

    def is_free(self, owner: str, dead: Mapping[str, float]) -> bool:
        """Tell whether an owner is dead or has no row."""
        return owner in dead or owner not in {row.instance_id for row in self.rows}

    async def owned(self, owner: str) -> frozenset[str]:
        """Return the ids of what is left that has this owner."""
        return frozenset(record.task_id for record in self.left if record.owner == owner)

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return one that is left."""
        return next((record for record in self.left if record.task_id == task_id), None)

    async def forget(self, instance_id: str, *, beat: float | None = None) -> None:
        """Take it down."""
        self.forgotten.append((instance_id, beat))


def left(**changes: Any) -> TaskRecord:
    """Return a pending record of a dead instance."""
    text = payload.encode(note, ("hello",), {})
    base = TaskRecord(
        "id", "note", TaskStatus.PENDING, 1.0, owner="dead", payload=text, target=f"{__name__}:note", ready_at=1.0
    )
    return base._replace(**changes)


class Sweeper:
    """A recovery with everything that it needs, on a store that a dead instance left."""

    def __init__(
        self, store: LeftStore, *, settings: Settings | None = None, definition: TaskDefinition | None = None
    ) -> None:
        ran.clear()
        self.store = store
        self.told = RecordingObserver()
        self.started: list[Any] = []
        self.followed: list[tuple[str, Any]] = []
        self.engine = LocalEngine(None)
        self.me = this_instance()
        self.lease = Lease(15.0)
        registry = Registry()
        registry.add(
            definition
            or TaskDefinition(name="note", func=note, is_async=True, code_name=f"{__name__}.note", declared=True)
        )
        self.journal = Journal(store, [self.told], max_backlog=100)  # type: ignore[arg-type]
        self.recovery = Recovery(
            store, self.journal, self.engine, registry, Calls(registry),  # type: ignore[arg-type]
            Expiry(self.journal, KeptCalls()), self, self, Turns(Schedules(), self.journal, self.engine.submit),
            settings=settings or Settings(), liveness=Liveness(self.me, 15.0), lease=self.lease, me=self.me,
        )  # fmt: skip

    def ended(self, entry: Entry, value: Any = None) -> None:
        """Be told of a task that ended, in the place of what adds its follow-ups."""
        self.followed.append((entry.record.task_id, value))

    def has(self, _: TaskRecord) -> bool:
        """Stand in for what holds callbacks back: there are none."""
        return False

    def submit(self, entry: Entry) -> None:
        """Never be called."""
        raise AssertionError(entry)

    async def __aenter__(self) -> Self:
        self.journal.start()
        self.engine.start(self._run)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.stop(within=1)
        await self.journal.stop(within=1)

    async def _run(self, entry: Any) -> None:
        self.started.append(entry)
        await entry.func(*entry.args, **entry.kwargs)


async def sweep(
    record: TaskRecord, *, settings: Settings | None = None, definition: TaskDefinition | None = None
) -> tuple[TaskRecord, list[str]]:
    """Return what the record became, and what was told."""
    store = LeftStore([record])
    async with Sweeper(store, settings=settings, definition=definition) as sweeper:
        assert await sweeper.recovery.sweep() == 1
        async with asyncio.timeout(5):
            while store.batches[0][0].record.status is TaskStatus.PENDING and not sweeper.started:  # noqa: ASYNC110
                await asyncio.sleep(0)
    (change,) = store.batches[0]
    assert change.committed == record.evolve(owner=sweeper.me.instance_id)
    assert bool(sweeper.started) == (change.record.status is TaskStatus.PENDING)
    return change.record, sweeper.told.kinds()


async def test_pending_runs_again_with_requeue_pending() -> None:
    """Its arguments come from the store."""
    record, told = await sweep(left(), settings=Settings(requeue_pending=True))
    assert (record.status, record.recoveries, ran, told) == (TaskStatus.PENDING, 0, ["hello"], ["recovered"])


async def test_pending_runs_again_with_persist() -> None:
    """One task may want what the manager does not."""
    definition = TaskDefinition(name="note", func=note, is_async=True, code_name=f"{__name__}.note", persist=True)
    record, _ = await sweep(left(), definition=definition)
    assert (record.status, ran) == (TaskStatus.PENDING, ["hello"])


@pytest.mark.parametrize("facts", [{"run_at": 1.0}, {"schedule": "nightly"}])
async def test_what_was_to_run_later_runs_again(facts: dict[str, Any]) -> None:
    """Whatever requeue_pending says: waiting was its purpose."""
    record, _ = await sweep(left(**facts))
    assert (record.status, ran) == (TaskStatus.PENDING, ["hello"])


async def test_those_of_a_queue_with_limits_wait_in_its_order_and_hold_up_no_other() -> None:
    """However many there are, the line has all of them: the most urgent one is first, though it was left last."""
    store = LeftStore(
        [left(task_id=str(number), queue="email", priority=int(number == 99)) for number in range(100)]
        + [left(task_id="other")]
    )
    async with Sweeper(store, settings=Settings(requeue_pending=True)) as sweeper:
        sweeper.engine.queues.change("email", QueueConfig(concurrency=1), paused=False)
        assert await sweeper.recovery.sweep() == 101
        async with asyncio.timeout(5):
            while len(sweeper.started) < 101:  # noqa: ASYNC110
                await asyncio.sleep(0)
    order = [entry.record.task_id for entry in sweeper.started]
    assert order.index("other") <= 2
    order.remove("other")
    assert order == ["0", "99", *(str(number) for number in range(1, 99))]


async def test_a_paused_queue_keeps_what_a_dead_instance_left() -> None:
    """Also without requeue_pending."""
    async with Sweeper(LeftStore([left(queue="email")])) as sweeper:
        sweeper.engine.queues.change("email", QueueConfig(), paused=True)
        assert await sweeper.recovery.sweep() == 1
        assert (sweeper.started, sweeper.engine.queues.waiting) == ([], 1)
        sweeper.engine.queues.change("email", QueueConfig(), paused=False)
        async with asyncio.timeout(5):
            while not sweeper.started:  # noqa: ASYNC110
                await asyncio.sleep(0)


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


async def test_the_row_of_a_dead_instance_goes_when_nothing_of_it_is_left() -> None:
    """By the beat it was judged by: one that beat again meanwhile keeps its row."""
    me = this_instance()
    dead = Instance("dead", "elsewhere", 1, 5, 0.0, 100.0, age=60.0)
    alive = Instance("alive", "elsewhere", 2, 5, 0.0, 100.0, age=1.0)
    store = LeftStore([left(), left(task_id="other", owner="alive")], [dead, alive, me])
    async with Sweeper(store, settings=Settings(requeue_pending=True)) as sweeper:
        assert await sweeper.recovery.sweep() == 1
        assert store.forgotten == [("dead", 100.0)]
        assert [record.task_id for record in store.left] == ["other"]


async def test_nobody_is_judged_while_the_own_lease_is_over() -> None:
    """An instance that cannot beat cannot tell whether others could."""
    store = LeftStore([left()])
    async with Sweeper(store) as sweeper:
        sweeper.lease.renew(time.monotonic() - 16.0)
        assert await sweeper.recovery.sweep() == 0
        assert len(store.left) == 1
        sweeper.lease.renew(time.monotonic())
        assert await sweeper.recovery.sweep() == 1


async def test_what_was_claimed_without_an_answer_is_found_by_the_next_sweep() -> None:
    """As when the connection broke between the commit and its confirmation."""
    store = LeftStore([])
    async with Sweeper(store, settings=Settings(requeue_pending=True)) as sweeper:
        store.left = [left(owner=sweeper.me.instance_id)]
        store.rows = [sweeper.me]
        assert await sweeper.recovery.sweep() == 0
        store.rows = [sweeper.me, this_instance()]
        store.errors = [StoreUnavailableError("the connection broke")]
        with pytest.raises(StoreUnavailableError):
            await sweeper.recovery.sweep()
        assert await sweeper.recovery.sweep() == 1
        async with asyncio.timeout(5):
            while not ran:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert await sweeper.recovery.sweep() == 0
    assert ran == ["hello"]


async def test_what_one_left_without_an_owner_is_looked_for_again_after_the_grace() -> None:
    """It committed a task in a user's transaction and died before it claimed it: nobody waits for a whole lease."""
    store = LeftStore([])
    async with Sweeper(store, settings=Settings(requeue_pending=True)) as sweeper:
        store.rows = [sweeper.me]
        assert await sweeper.recovery.sweep() == 0
        store.left = [left(owner="")]
        assert await sweeper.recovery.sweep() == 0
        sweeper.recovery._look_at -= OWNERLESS_GRACE
        assert await sweeper.recovery.sweep() == 1


@pytest.mark.parametrize("version", [1, 2])
async def test_what_this_instance_claims_itself_is_not_taken_up_again(version: int) -> None:
    """Whether its own claim is still on its way, or was stored in the meantime."""
    record = left(owner="", version=1)
    store = LeftStore([record])
    async with Sweeper(store, settings=Settings(requeue_pending=True)) as sweeper:
        entry = make_entry()
        claimed = record.evolve(owner=sweeper.me.instance_id)
        entry.record, entry.committed = claimed, record if version == 1 else claimed
        sweeper.journal.live[record.task_id] = entry
        assert await sweeper.recovery.sweep() == 0
        assert sweeper.journal.live[record.task_id] is entry
        assert sweeper.started == []


async def test_company_that_the_store_does_not_bear_well_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not of the dead, and not where there is nothing to say."""
    alive = Instance("alive", "elsewhere", 2, 5, 0.0, 100.0, age=1.0)
    dead = Instance("dead", "elsewhere", 2, 5, 0.0, 100.0, age=100.0)
    store = LeftStore([])
    store.company_warning = "better not"
    async with Sweeper(store) as sweeper:
        store.rows = [sweeper.me, dead]
        await sweeper.recovery.sweep()
        assert "better not" not in caplog.text
        store.rows = [sweeper.me, alive]
        for _ in range(2):
            await sweeper.recovery.sweep()
    assert caplog.text.count("better not") == 1
