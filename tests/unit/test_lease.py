"""How an instance knows that its tasks are still its own."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.engines.eager import Starter
from fastapi_taskflow.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 15.0


class Clock:
    """Monotonic seconds, set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the monotonic clock of the module, not the loop's."""
    clock = Clock()
    monkeypatch.setattr("fastapi_taskflow.lease.time", type("Time", (), {"monotonic": staticmethod(clock)}))
    return clock


def test_it_is_held_until_its_time_is_over(now: Clock) -> None:
    """From before the heartbeat, while the loop turns."""
    lease = Lease(SECONDS)
    for _ in range(14):
        now.now += 1.0
        lease.pulse()
    assert (lease.held, lease.frozen) == (True, False)
    now.now += 1.0
    lease.pulse()
    assert (lease.held, lease.frozen) == (False, False)
    lease.renew(now.now)
    assert lease.held


def test_a_loop_that_stood_still_is_frozen_until_the_lease_is_renewed(now: Clock) -> None:
    """Whether its pulse or something else is the first to run again."""
    lease = Lease(SECONDS)
    now.now += SECONDS
    assert (lease.held, lease.frozen) == (False, True)
    lease.pulse()
    assert (lease.held, lease.frozen) == (False, True)
    lease.renew(now.now)
    assert (lease.held, lease.frozen) == (True, False)


def test_a_loop_that_stood_still_for_less_is_frozen_if_the_lease_ended_meanwhile(now: Clock) -> None:
    """The last heartbeat was a third of a lease ago when it stopped, and the others count from there."""
    lease = Lease(SECONDS)
    for _ in range(5):
        now.now += 1.0
        lease.pulse()
    now.now += 9.5
    assert (lease.held, lease.frozen) == (True, False)
    now.now += 0.5
    assert (lease.held, lease.frozen) == (False, True)
    lease.pulse()
    assert (lease.held, lease.frozen) == (False, True)
    lease.renew(now.now)
    assert (lease.held, lease.frozen) == (True, False)


def test_a_short_halt_in_an_outage_stops_nothing(now: Clock) -> None:
    """What runs goes on while the store takes no heartbeats, however late a busy loop gives its pulse."""
    lease = Lease(SECONDS)
    for _ in range(20):
        now.now += 2.4
        lease.pulse()
    assert (lease.held, lease.frozen) == (False, False)


def test_one_that_nobody_else_sees_never_ends(now: Clock) -> None:
    """A store in memory is this process's alone."""
    lease = Lease(None)
    now.now += 1e9
    lease.pulse()
    assert lease.held
    assert not lease.frozen


async def test_who_waits_goes_on_when_it_is_renewed() -> None:
    """Each with a future of its own; one that was cancelled is no trouble."""
    lease = Lease(SECONDS)
    first, second = lease.regained(), lease.regained()
    first.cancel()
    lease.renew(time.monotonic())
    await second


@pytest.mark.parametrize("begin", [Starter.begin, Starter.spawn], ids=["begun", "spawned"])
@pytest.mark.parametrize("lost", [True, False])
async def test_a_coroutine_that_waits_goes_no_step_further_while_frozen(
    now: Clock,
    begin: Callable[[Starter, object], asyncio.Task[None]],
    lost: bool,  # noqa: FBT001
) -> None:
    """It goes on when its task is still ours, and is cancelled where it stands when it was taken over."""
    lease = Lease(SECONDS)
    seen: list[str] = []
    go = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        seen.append("waits")
        try:
            await go.wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        seen.append("went on")

    task = begin(Starter(asyncio.get_running_loop(), lease), work())
    while not seen:  # noqa: ASYNC110
        await asyncio.sleep(0)
    now.now += SECONDS
    go.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert seen == ["waits"]
    if lost:
        task.cancel()
    lease.pulse()
    lease.renew(now.now)
    await asyncio.wait([task])
    assert seen == ["waits", "cancelled" if lost else "went on"]
