"""The metrics of several workers as one: what is kept, what is shown, and what never goes back."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from fastapi_taskflow.errors import StoreUnavailableError
from fastapi_taskflow.services import host_numbers
from fastapi_taskflow.services.heartbeat import this_instance
from fastapi_taskflow.services.host_numbers import GONE, HostNumbers
from fastapi_taskflow.services.liveness import pid_start_time
from fastapi_taskflow.stores.memory import MemoryStore
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.prometheus import PrometheusMetrics
from tests.unit.telemetry.samples import pending, started, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

TASK = {"task": "send_email", "queue": "default"}


class SharedStore(MemoryStore):
    """Stands for a database; can fail, and be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.saves = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def save_numbers(self, instance_id: str, host: str, numbers: str) -> None:
        await self.gate.wait()
        self._check()
        self.saves += 1
        await super().save_numbers(instance_id, host, numbers)

    async def numbers(self, host: str) -> Mapping[str, str]:
        self._check()
        return await super().numbers(host)

    async def merge_numbers(
        self, host: str, gone: Sequence[str], into: str, merge: Callable[[Sequence[str]], str]
    ) -> None:
        self._check()
        await super().merge_numbers(host, gone, into, merge)

    async def forget_numbers(self, age: float) -> None:
        self._check()
        await super().forget_numbers(age)

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("the server is away")


class Worker:
    """One worker as far as its metrics go, in this process or in another one's name."""

    def __init__(
        self, store: SharedStore, registry: CollectorRegistry | None = None, *, pid: int | None = None
    ) -> None:
        me = this_instance()
        if pid is not None:
            me = dataclasses.replace(me, pid=pid, pid_started=pid_start_time(pid) or 0)
        self.me = me
        self.store = store
        self.live = 0
        self.metrics = PrometheusMetrics(registry=registry, backlog=lambda: self.live)
        self.numbers = HostNumbers(store, self.metrics, me)

    async def start(self) -> Worker:
        await self.store.beat(self.me)
        await self.numbers.start()
        return self

    def work(self, times: int = 1) -> None:
        for _ in range(times):
            running = started()
            self.metrics.observe(told("enqueued", pending()))
            self.metrics.observe(told("started", running))
            self.metrics.observe(told("finished", lifecycle.succeed(running, at=102.3)))

    async def scrape(self, name: str = names.ENQUEUED_TOTAL) -> float | None:
        await self.metrics.scrape("text/plain")
        return self.value(name)

    def value(self, name: str = names.ENQUEUED_TOTAL) -> float | None:
        return self.metrics.registry.get_sample_value(name, {} if name == names.STORE_BACKLOG else TASK)


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that waits to be killed."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def end(child: subprocess.Popen[bytes]) -> None:
    """End a process, and see it off."""
    child.kill()
    child.wait()


@pytest.fixture
async def store() -> SharedStore:
    """An empty database."""
    return SharedStore()


async def stop(*workers: Worker) -> None:
    """End the workers."""
    for worker in workers:
        await worker.numbers.stop()


async def test_each_worker_answers_for_all(store: SharedStore) -> None:
    """What one shows is kept at that moment, so the next one shows no less."""
    one, two = await Worker(store).start(), await Worker(store).start()
    one.work(3)
    assert await one.scrape() == 3
    two.work(2)
    assert await two.scrape() == 5
    assert await one.scrape() == 5
    assert await one.scrape(f"{names.DURATION_SECONDS}_count") == 5
    await stop(one, two)


async def test_gauges_are_those_of_the_living(store: SharedStore) -> None:
    """Backlogs add up; that of one whose row is gone counts no more, its counters do."""
    one, two = await Worker(store).start(), await Worker(store).start()
    one.live, two.live = 2, 5
    two.work()
    await two.scrape()
    assert await one.scrape(names.STORE_BACKLOG) == 7
    await store.forget(two.me.instance_id)
    assert await one.scrape(names.STORE_BACKLOG) == 2
    assert one.value() == 1
    await stop(one, two)


async def test_those_that_are_gone_are_put_together(store: SharedStore) -> None:
    """A killed process's counters stay, in one row for all such, whatever its own row in the store says."""
    one = await Worker(store).start()
    with process() as child:
        dead = await Worker(store, pid=child.pid).start()
        dead.work(4)
        await dead.numbers.look()
        dead.numbers._loop._task.cancel()  # type: ignore[union-attr]
        one.work(1)
        assert await one.scrape() == 5
        end(child)
    for _ in range(3):
        assert await one.scrape() == 5
    assert set(await store.numbers(one.me.host)) == {one.numbers._key, GONE}
    one.work(1)
    assert await one.scrape() == 6
    await stop(one)


async def test_one_that_only_looked_dead_is_not_counted_twice(store: SharedStore) -> None:
    """Its row was forgotten while it was stopped; its process exists, so its numbers stay its own."""
    one = await Worker(store).start()
    with process() as child:
        stopped = await Worker(store, pid=child.pid).start()
        stopped.work(2)
        assert await stopped.scrape() == 2
        await store.forget(stopped.me.instance_id)
        for _ in range(3):
            assert await one.scrape() == 2
        stopped.work(1)
        assert await stopped.scrape() == 3
        assert await one.scrape() == 3
        await stop(stopped)
    await stop(one)


async def test_several_that_put_together_at_once_count_once(store: SharedStore) -> None:
    """Whoever is first does it."""
    workers = [await Worker(store).start() for _ in range(3)]
    with process() as child:
        dead = await Worker(store, pid=child.pid).start()
        dead.work(7)
        await stop(dead)
        end(child)
    for _ in range(3):
        assert await asyncio.gather(*(worker.scrape() for worker in workers)) == [7, 7, 7]
    await stop(*workers)


async def test_counters_go_on_after_a_restart(store: SharedStore) -> None:
    """In a new process from the sum of the old ones; in the same process without being counted twice."""
    with process() as child:
        before = await Worker(store, pid=child.pid).start()
        before.work(3)
        await stop(before)
        end(child)
    after = await Worker(store).start()
    assert await after.scrape() == 3
    after.work(1)
    await stop(after)
    assert after.value() == 4
    after.me = this_instance()
    after.numbers = HostNumbers(store, after.metrics, after.me)
    await after.start()
    assert await after.scrape() == 4
    await stop(after)


async def test_a_store_that_is_down_takes_nothing_back(
    store: SharedStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scrape answers with what was known; counters stand still, gauges go on, and it is said once."""
    one, two = await Worker(store).start(), await Worker(store).start()
    one.work(2)
    two.work(1)
    await two.scrape()
    assert await one.scrape() == 3
    store.down = True
    one.work(5)
    one.live = 9
    with caplog.at_level(logging.WARNING):
        assert [await one.scrape() for _ in range(3)] == [3, 3, 3]
    assert one.value(names.STORE_BACKLOG) == 9
    assert [record.message for record in caplog.records] == [
        "metrics: the server is away; counters stand still until the store answers"
    ]
    store.down = False
    assert await one.scrape() == 8
    monkeypatch.setattr(host_numbers, "PATIENCE", 0.01)
    store.gate.clear()
    one.work(1)
    assert await one.scrape() == 8
    store.gate.set()
    await stop(one, two)
    assert one.value() == 9


async def test_scrapes_that_wait_are_bounded(store: SharedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come while the store hangs, at most one more look waits for them all."""
    one = await Worker(store).start()
    monkeypatch.setattr(host_numbers, "PATIENCE", 0.01)
    store.gate.clear()
    one.work(1)
    before = len(asyncio.all_tasks())
    for _ in range(50):
        await one.scrape()
    assert len(asyncio.all_tasks()) <= before + 2
    store.gate.set()
    monkeypatch.undo()
    assert await one.scrape() == 1
    await stop(one)


async def test_nothing_is_written_while_nothing_happens(store: SharedStore) -> None:
    """An idle service does not write; one in which a task waits tells how old it is."""
    one = await Worker(store).start()
    one.work()
    await one.scrape()
    saves = store.saves
    for _ in range(3):
        await one.scrape()
        await one.numbers.look()
    assert store.saves == saves
    one.live = 1
    await one.numbers.look()
    assert store.saves == saves + 1
    await stop(one)


async def test_damaged_text_is_left_out_and_said_once(store: SharedStore, caplog: pytest.LogCaptureFixture) -> None:
    """What was read before the damage still counts; its owner writes over it."""
    one, two = await Worker(store).start(), await Worker(store).start()
    two.work(2)
    await two.scrape()
    assert await one.scrape() == 2
    with caplog.at_level(logging.WARNING):
        await store.save_numbers(two.numbers._key, two.me.host, "{damaged")
        await store.save_numbers("never-read", two.me.host, "[]")
        assert [await one.scrape() for _ in range(3)] == [2, 2, 2]
    assert len(caplog.records) == 2
    assert {"left out" in record.message for record in caplog.records} == {True}
    two.work(1)
    await two.scrape()
    assert await one.scrape() == 3
    await stop(one, two)


async def test_hosts_that_are_gone_are_forgotten_at_the_start(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that keep nothing any more; a store that cannot do it now is asked at the next start."""
    await store.save_numbers("a/1/1", "an old container", "{}")
    await stop(await Worker(store).start())
    assert await store.numbers("an old container")
    monkeypatch.setattr(host_numbers, "KEPT", -1.0)
    store.down = True
    await stop(await Worker(store).start())
    assert "stay until the next start" in caplog.text
    store.down = False
    assert await store.numbers("an old container")
    await stop(await Worker(store).start())
    assert not await store.numbers("an old container")


async def test_a_damaged_sum_heals(store: SharedStore) -> None:
    """The counters in it are lost; those of the next process that goes are not."""
    one = await Worker(store).start()
    await store.save_numbers(GONE, one.me.host, "damaged")
    with process() as child:
        dead = await Worker(store, pid=child.pid).start()
        dead.work(2)
        await stop(dead)
        end(child)
    for _ in range(3):
        assert await one.scrape() == 2
    assert json.loads((await store.numbers(one.me.host))[GONE])["version"] == 1
    await stop(one)


async def test_newer_text_is_left_alone(store: SharedStore) -> None:
    """After going back to older code nothing of the newer one's numbers is lost."""
    one = await Worker(store).start()
    newer = json.dumps({"version": 99})
    await store.save_numbers(GONE, one.me.host, newer)
    with process() as child:
        dead = await Worker(store, pid=child.pid).start()
        dead.work(2)
        await stop(dead)
        end(child)
        await store.save_numbers(f"x/{child.pid}/1", one.me.host, newer)
    for _ in range(3):
        assert await one.scrape() == 2
    kept = await store.numbers(one.me.host)
    assert kept[GONE] == kept[f"x/{child.pid}/1"] == newer
    assert dead.numbers._key in kept
    await stop(one)


async def test_a_database_that_was_replaced_gets_the_numbers_again(store: SharedStore) -> None:
    """Nothing has changed since the last save, but it is not there any more."""
    one = await Worker(store).start()
    one.work(2)
    await one.scrape()
    store._clear()
    await one.numbers.look()
    await one.numbers.look()
    assert set(await store.numbers(one.me.host)) == {one.numbers._key}
    await stop(one)


async def test_managers_with_one_registry_and_one_store_count_once(store: SharedStore) -> None:
    """Each reads the other's row, and both show their own."""
    registry = CollectorRegistry()
    one, two = await Worker(store, registry).start(), await Worker(store, registry).start()
    third = await Worker(store).start()
    for worker, times in ((one, 1), (two, 2), (third, 4)):
        worker.work(times)
        worker.live = times
    await third.scrape()
    assert await one.scrape() == await two.scrape() == await third.scrape() == 7
    assert await one.scrape(names.STORE_BACKLOG) == 7
    await stop(one, two, third)


async def test_a_scrape_on_another_loop_shows_what_was_read_last(store: SharedStore) -> None:
    """The store belongs to one loop; a registry may be shared with a manager on another."""
    one = await Worker(store).start()
    one.work(1)
    await one.numbers.look()
    one.work(1)

    def elsewhere() -> float | None:
        return asyncio.run(one.scrape())

    assert await asyncio.to_thread(elsewhere) == 1
    assert await one.scrape() == 2
    await stop(one)


async def test_an_unforeseen_failure_is_logged_and_stops_nothing(
    store: SharedStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken store of somebody's own must not break the scrape."""

    async def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    one = await Worker(store).start()
    one.work(1)
    monkeypatch.setattr(store, "numbers", broken)
    assert await one.scrape() == 1
    assert "metrics of the workers could not be shared" in caplog.text
    monkeypatch.undo()
    await stop(one)


async def test_the_end_does_not_wait_for_ever(
    store: SharedStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that hangs at the shutdown costs the last two seconds of the counters, and a line in the log."""
    one = await Worker(store).start()
    one.work(1)
    monkeypatch.setattr(host_numbers, "LAST_WAIT", 0.01)
    store.gate.clear()
    await stop(one)
    assert "the store did not take the last counters" in caplog.text
