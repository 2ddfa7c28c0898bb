"""The engine around the queues: what follows a task in line, and the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi_taskflow import clock
from fastapi_taskflow.engines.local import LocalEngine
from fastapi_taskflow.task.queue import QueueConfig
from tests.unit.fakes import make_entry

if TYPE_CHECKING:
    from fastapi_taskflow.entry import Entry

ONE = QueueConfig(concurrency=1)


class Bench:
    """An engine whose tasks end when their gate is open."""

    def __init__(self, limit: int | None = None, **queues: QueueConfig) -> None:
        self.engine = LocalEngine(limit, queues=queues)
        self.engine.hold()
        self.engine.start(self._run)
        self.started: list[str] = []
        self.gate = asyncio.Event()

    async def _run(self, entry: Entry) -> None:
        self.started.append(entry.record.task_id)
        await self.gate.wait()

    def follow(self, entry: Entry) -> asyncio.Task[None]:
        """Run an entry as a request does, step by step."""
        task = self.engine.begin(self.engine.run(entry))
        assert task is not None
        return task

    async def turns(self) -> None:
        """Let what may start begin."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Let all end."""
        self.gate.set()
        assert await self.engine.stop(within=2)


async def test_one_who_is_cancelled_in_line_or_with_a_slot_gives_it_back() -> None:
    """The slot goes to the next one, though the first never began."""
    bench = Bench(default=ONE)
    runs = bench.follow(make_entry("runs"))
    first, second = bench.follow(make_entry("first")), bench.follow(make_entry("second"))
    bench.engine.submit(make_entry("third"))
    second.cancel()
    await bench.turns()
    assert bench.engine.queues.waiting == 2
    lane = bench.engine.queues.lane("default")
    # The slot goes to the first one, which is cancelled before it takes notice.
    runs.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
        if bench.engine.queues.waiting == 1:
            break
    first.cancel()
    await bench.turns()
    assert bench.started == ["runs", "third"]
    assert (lane.running, bench.engine.queues.waiting) == (1, 0)
    await bench.end()


async def test_whoever_follows_one_that_leaves_its_line_goes_on() -> None:
    """It was cancelled, or its time is over, or another instance has it."""
    bench = Bench(default=ONE)
    runs, entry = bench.follow(make_entry("runs")), make_entry("waits")
    follower = bench.follow(entry)
    await bench.turns()
    entry.leave()
    entry.leave()
    async with asyncio.timeout(2):
        await follower
    assert bench.started == ["runs"]
    await bench.end()
    assert runs.done()


async def test_the_drain_does_not_wait_for_a_paused_queue_and_waits_for_a_rate() -> None:
    """What gets its turn in time runs; what is paused stays, later too."""
    bench = Bench(still=ONE, slow=QueueConfig(rate_limit="2/s"))
    bench.gate.set()
    bench.engine.queues.change("still", ONE, paused=True)
    for name in ("still", "slow", "slow", "slow"):
        bench.engine.submit(make_entry(f"{name} {len(bench.started)}", queue=name))
        await bench.turns()
    assert bench.started == ["slow 0", "slow 1"]
    draining = asyncio.create_task(bench.engine.drain(within=5))
    await bench.turns()
    bench.engine.submit(make_entry("late", queue="still"))
    began = clock.now()
    assert await draining
    assert bench.started == ["slow 0", "slow 1", "slow 2"]
    assert clock.now() - began < 4
    await bench.end()


async def test_the_drain_ends_in_time_and_when_the_last_one_leaves() -> None:
    """Nobody runs, and one waits for its rate."""
    bench = Bench(slow=QueueConfig(rate_limit="1/h"))
    bench.gate.set()
    bench.engine.submit(make_entry("runs", queue="slow"))
    entry = make_entry("waits", queue="slow")
    bench.engine.submit(entry)
    assert not await bench.engine.drain(within=0.01)
    draining = asyncio.create_task(bench.engine.drain(within=5))
    await bench.turns()
    entry.leave()
    async with asyncio.timeout(2):
        assert await draining
    await bench.end()
    assert bench.started == ["runs"]


async def test_after_the_stop_nothing_starts() -> None:
    """A slot that was given in the last moment is given back."""
    bench = Bench(default=ONE)
    bench.engine.submit(make_entry("first"))
    bench.engine.submit(make_entry("second"))
    assert await bench.engine.stop(within=1)
    bench.engine.submit(make_entry("third"))
    await bench.engine.run(make_entry("fourth"))
    await bench.turns()
    assert bench.started == []
    assert bench.engine.queues.lane("default").running == 0
