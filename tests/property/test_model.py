"""Store, dispatcher, runner and recovery of several instances, in any order of events, against a small model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fastapi_taskflow.errors import InvalidTransitionError, TaskNotFoundError
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.stores.memory import MemoryStore
from fastapi_taskflow.stores.postgresql import PostgresqlStore
from fastapi_taskflow.stores.sql import SqlStore
from fastapi_taskflow.task.placing import placed
from fastapi_taskflow.task.record import DEAD, FINISHED, Resolution, TaskStatus
from tests import postgresql
from tests.property.world import LEASE, Clock, Process, turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from fastapi_taskflow.store import Store
    from fastapi_taskflow.task.record import TaskRecord

MOST = 3
KINDS = st.sampled_from(["once", "again", "retried"])
KEYS = st.sampled_from([None, None, "k1", "k2"])
ANY = st.integers(min_value=0, max_value=1_000)


class PersistentMemoryStore(MemoryStore):
    """The memory store, where several instances of one process share it: all of it outlives an instance."""

    @property
    def persistent(self) -> bool:
        """True, for as long as the test lasts."""
        return True

    async def claim(self, owner: str, dead: Mapping[str, float], *, limit: int) -> Sequence[TaskRecord]:
        """Take over tasks, arguments included: a memory store has no use for them otherwise."""
        return [self._live[each.task_id] for each in await super().claim(owner, dead, limit=limit)]


class Model(RuleBasedStateMachine):
    """What must hold, however events follow each other."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.clock = Clock()
        self.clock.install(self.patch)
        self.folder = Path(tempfile.mkdtemp(prefix="taskflow-model-"))
        self.store = self.make_store()
        self.names = 0
        self.processes: list[Process] = []
        self.accepted: set[str] = set()
        self.keys: dict[tuple[str, str], str] = {}
        self.seen: dict[str, TaskRecord] = {}
        self.ended_at: dict[str, float] = {}
        self.pruned: set[str] = set()
        self.retried: set[str] = set()

    def make_store(self) -> Store:
        """Return a closed, empty store."""
        return PersistentMemoryStore(max_finished=100_000)

    def run(self, work: Awaitable[Any]) -> Any:
        """Do it, and let everything that follows from it happen."""

        async def whole() -> Any:
            async with asyncio.timeout(60):
                result = await work
                await turns()
            return result

        return self.loop.run_until_complete(whole())

    def one(self, which: int) -> Process:
        """Return one of the processes that get turns."""
        awake = self.awake
        return awake[which % len(awake)]

    @property
    def awake(self) -> list[Process]:
        """The processes that get turns."""
        return [process for process in self.processes if not process.stands_still]

    # -- what happens ------------------------------------------------------------------------------------------------

    @initialize()
    def open(self) -> None:
        """Open the store, and start two processes."""
        self.run(self.store.open())
        self.start()
        self.start()

    @precondition(lambda self: len(self.processes) < MOST)
    @rule()
    def start(self) -> None:
        """Another process comes."""
        self.names += 1
        process = Process(f"p{self.names}", self.store)
        self.run(process.start())
        self.processes.append(process)

    @precondition(lambda self: self.awake)
    @rule(which=ANY, kind=KINDS, key=KEYS)
    def enqueue(self, which: int, kind: str, key: str | None) -> None:
        """A task is accepted. One key names one task, whoever takes it."""
        process = self.one(which)
        entry = process.dispatcher.prepare(process.functions[kind], (), {}, placed(idempotency_key=key))
        task_id = self.run(process.dispatcher.enqueue(entry))
        self.accepted.add(task_id)
        self.pruned.discard(task_id)
        if key is not None:
            assert self.keys.setdefault((kind, key), task_id) == task_id

    @precondition(lambda self: any(process.running for process in self.awake))
    @rule(which=ANY, well=st.booleans())
    def finish(self, which: int, well: bool) -> None:  # noqa: FBT001
        """A function returns or raises, if its process may still let it go on."""
        running = [(process, task_id) for process in self.awake for task_id in process.running]
        process, task_id = running[which % len(running)]
        end = process.running[task_id]
        if not end.done():
            if well:
                end.set_result(None)
            else:
                end.set_exception(ValueError("no"))
        self.run(turns())

    @precondition(lambda self: self.awake and self.accepted)
    @rule(which=ANY, what=ANY)
    def cancel(self, which: int, what: int) -> None:
        """Somebody asks any process to cancel any task."""
        self.run(self._cancel(self.one(which), sorted(self.accepted)[what % len(self.accepted)]))

    async def _cancel(self, process: Process, task_id: str) -> None:
        try:
            if await process.dispatcher.cancel_here(task_id) is None:
                await self.store.ask_to_cancel(task_id)
        except InvalidTransitionError:
            record = await process.journal.get(task_id)
            assert record is None or record.finished

    @precondition(lambda self: self.awake and self.accepted)
    @rule(which=ANY, what=ANY)
    def retry(self, which: int, what: int) -> None:
        """Somebody asks for a task to be run again: a new one, or a clear no."""
        task_id = sorted(self.accepted)[what % len(self.accepted)]
        try:
            record = self.run(self.one(which).dispatcher.retry(task_id))
        except (InvalidTransitionError, TaskNotFoundError):
            return
        assert record.retry_of == task_id
        assert task_id not in self.retried
        self.retried.add(task_id)
        self.accepted.add(record.task_id)

    @precondition(lambda self: self.awake and self.accepted)
    @rule(which=ANY, what=ANY)
    def discard(self, which: int, what: int) -> None:
        """Somebody takes a task off the dead letters: it is off, or there is a clear no."""
        task_id = sorted(self.accepted)[what % len(self.accepted)]
        try:
            record = self.run(self.one(which).dispatcher.discard(task_id))
        except (InvalidTransitionError, TaskNotFoundError):
            return
        assert record.status in DEAD
        assert task_id not in self.retried

    @precondition(lambda self: self.awake)
    @rule(which=ANY)
    def flush(self, which: int) -> None:
        """A batch is committed."""
        self.run(self.one(which).journal.flushed())

    @precondition(lambda self: self.awake)
    @rule(which=ANY)
    def sweep(self, which: int) -> None:
        """A process looks for what the dead left, and at what others ask of it."""
        process = self.one(which)
        self.run(process.recovery.sweep())
        self.run(process.look())

    @rule(seconds=st.sampled_from([1, 5, 16, 40]))
    def wait(self, seconds: int) -> None:
        """Time passes, second by second; whoever gets turns beats."""
        for _ in range(seconds):
            self.clock.now += 1.0
            for process in self.awake:
                self.run(process.heartbeat.beat())

    @precondition(lambda self: self.awake)
    @rule(which=ANY)
    def freeze(self, which: int) -> None:
        """A process gets no turns any more, as by SIGSTOP."""
        self.one(which).stands_still = True

    @precondition(lambda self: len(self.awake) < len(self.processes))
    @rule()
    def thaw(self) -> None:
        """It gets turns again, as by SIGCONT; the first thing may be anything."""
        next(process for process in self.processes if process.stands_still).stands_still = False

    @precondition(lambda self: len(self.awake) > 1 and any(process.running for process in self.awake))
    @rule(which=ANY, seconds=st.sampled_from([4, 20]), goes_on=st.booleans())
    def stall(self, which: int, seconds: int, goes_on: bool) -> None:  # noqa: FBT001
        """A process at work stands still, others look after it, and it goes on with what it had in its hands."""
        busy = [process for process in self.awake if process.running]
        process = busy[which % len(busy)]
        process.stands_still = True
        self.wait(seconds)
        for other in self.awake:
            self.run(other.recovery.sweep())
        process.stands_still = False
        if goes_on:
            self.nothing_runs_twice_at_once()
            process.let_go_on()
            self.run(turns())
            self.run(process.journal.flushed())

    @precondition(lambda self: self.processes)
    @rule(which=ANY, hard=st.booleans())
    def end(self, which: int, hard: bool) -> None:  # noqa: FBT001
        """A process ends, by SIGKILL or by SIGTERM."""
        process = self.processes[which % len(self.processes)]
        self.processes.remove(process)
        self.run(process.crash() if hard or process.stands_still else process.stop())

    @rule(age=st.sampled_from([0.0, 10.0, 100.0]))
    def prune(self, age: float) -> None:
        """Old finished records are deleted, and nothing else."""
        before = self.clock.now - age
        records = self.stored()
        self.run(self.store.prune(before=before, limit=10_000))
        left = self.stored()
        for task_id in records.keys() - left.keys():
            record = records[task_id]
            assert record.status in FINISHED - {TaskStatus.INTERRUPTED}
            assert record.end_time is not None
            assert record.end_time < before
            self.pruned.add(task_id)
            self.retried.discard(task_id)

    # -- what holds --------------------------------------------------------------------------------------------------

    def stored(self) -> dict[str, TaskRecord]:
        """Everything that the store holds."""
        page = self.run(self.store.list(TaskQuery(limit=10_000)))
        return {record.task_id: record for record in page.records}

    @invariant()
    def nothing_accepted_is_lost(self) -> None:
        """It is in the store until it is pruned."""
        stored = self.stored()
        assert self.accepted - self.pruned <= stored.keys()
        for task_id, record in stored.items():
            before = self.seen.get(task_id)
            if before is not None and task_id not in self.pruned and before.created_at == record.created_at:
                assert record.version >= before.version
                if before.finished:
                    # Nothing but what is decided about it.
                    assert record == before._replace(version=record.version, resolution=record.resolution)
                    assert before.resolution in {None, Resolution.DISCARDED, record.resolution}
            self.seen[task_id] = record

    @invariant()
    def counters_are_right(self) -> None:
        """They say what counting would."""
        counts = Counter((record.func_name, record.status) for record in self.stored().values())
        stats = self.run(self.store.stats())
        told = {(name, status): number for name, each in stats.items() for status, number in each.counts.items()}
        assert {key: number for key, number in told.items() if number} == dict(counts)

    @invariant()
    def nothing_runs_twice_at_once(self) -> None:
        """Of the processes that would let it go on, at most one has a task in its hands."""
        hands = Counter(task_id for process in self.awake if not process.lease.frozen for task_id in process.running)
        assert not [task_id for task_id, number in hands.items() if number > 1]

    def teardown(self) -> None:
        """In the end every process dies, and one that comes later settles everything."""
        try:
            if not self.names:
                return
            for process in self.processes:
                self.run(process.crash())
            self.processes = []
            self.clock.now += 4 * LEASE
            self.start()
            last = self.processes[0]
            # Where the server's clock counts, no time has passed for it: the dead are watched for a lease.
            self.wait(int(LEASE) + 1)
            self.run(last.recovery.sweep())
            for _ in range(1_000):
                if not last.running:
                    break
                last.let_go_on()
                self.run(turns())
            self.run(last.look())
            self.run(last.journal.flushed())
            for record in self.stored().values():
                assert record.finished, record
                if record.status is TaskStatus.INTERRUPTED:
                    assert not record.requeue_on_interrupt, record
            self.nothing_accepted_is_lost()
            self.counters_are_right()
            self.run(last.stop())
        finally:
            self.loop.run_until_complete(self.store.close())
            self.loop.close()
            self.patch.undo()
            shutil.rmtree(self.folder)


class SqliteModel(Model):
    """The same on SQLite."""

    def make_store(self) -> Store:
        """Return a store in a new file."""
        return SqlStore(self.folder / "tasks.db")


class PostgresqlModel(Model):
    """The same on PostgreSQL, whose server has the time of the heartbeats."""

    url = ""

    def make_store(self) -> Store:
        """Return a store in the database, which is emptied for it."""
        return PostgresqlStore(postgresql.emptied(self.url))


def play(model: type[Model], examples: int, steps: int) -> None:
    """Play as many games of so many events, the same ones each time."""
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_in_memory() -> None:
    """Many games, since they are quick."""
    play(Model, examples=60, steps=40)


def test_on_sqlite() -> None:
    """Some games with real transactions."""
    play(SqliteModel, examples=15, steps=30)


@pytest.mark.postgres
def test_on_postgresql() -> None:
    """Some games with those of PostgreSQL."""
    with postgresql.database() as PostgresqlModel.url:
        play(PostgresqlModel, examples=10, steps=30)
