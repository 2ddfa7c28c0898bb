"""Who starts when: order, aging, fairness, rate, pause, and changes of the limits while all is busy."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.engines.queues import NAMES_TOLD, Queues
from fastapi_taskflow.engines.waiting import AGING, Line
from fastapi_taskflow.errors import QueueFullError
from fastapi_taskflow.task.queue import NO_LIMITS, QueueConfig
from fastapi_taskflow.task.record import TaskStatus
from tests.unit.engines.world import World
from tests.unit.fakes import make_entry

if TYPE_CHECKING:
    from fastapi_taskflow.entry import Entry

ONE = QueueConfig(concurrency=1)


def test_higher_first_and_first_come_first_served_within() -> None:
    """Three priorities, two of each, added in the order low, high, middle."""
    world = World(default=ONE)
    world.add(task_id="runs")
    for priority in (-5, 10, 0):
        for number in (1, 2):
            world.add(priority=priority, task_id=f"{priority}.{number}")
    world.end_all()
    assert world.starts == ["runs", "10.1", "10.2", "0.1", "0.2", "-5.1", "-5.2"]


def test_a_low_one_gets_its_turn_however_many_high_ones_come() -> None:
    """One of priority 3 comes each second for ever; the one of priority 0 is overtaken for three times AGING."""
    world = World(default=ONE)
    world.add(task_id="runs", priority=3)
    low = world.add(task_id="low")
    waited = 0
    while "low" not in world.starts:
        world.add(priority=3)
        world.timers.advance(1)
        waited += 1
        world.end(next(iter(world.running)))
        assert waited <= 10 * AGING
    assert low.entry.record.priority == 0
    # The line of high ones in front of it is as long as it took.
    assert 3 * AGING <= waited <= 3 * AGING + 2


def test_queues_take_turns_under_the_common_limit() -> None:
    """A thousand of one queue hold the one of another up by one turn, not by a thousand."""
    world = World(2, bulk=NO_LIMITS, mail=NO_LIMITS)
    for _ in range(1_000):
        world.add("bulk")
    for number in range(3):
        world.add("mail", task_id=f"mail.{number}")
    first = len(world.starts)
    for _ in range(6):
        world.end(next(iter(world.running)))
    assert [task_id.startswith("mail") for task_id in world.starts[first:]] == [False, True] * 3 or [
        task_id.startswith("mail") for task_id in world.starts[first:]
    ] == [True, False] * 3


def test_a_queue_that_is_held_up_holds_up_no_other() -> None:
    """One at its concurrency, one paused and one without starts left wait; the free one goes on."""
    world = World(10, full=ONE, still=NO_LIMITS, slow=QueueConfig(rate_limit="1/m"), fast=NO_LIMITS)
    world.set("still", NO_LIMITS, paused=True)
    for name in ("full", "still", "slow"):
        for _ in range(20):
            world.add(name)
    for _ in range(30):
        world.add("fast")
    assert [world.count(name) for name in ("full", "still", "slow", "fast")] == [1, 0, 1, 8]
    for task_id in [each for each, (_, entry) in world.running.items() if entry.record.queue == "fast"]:
        world.end(task_id)
    assert [world.count(name) for name in ("full", "still", "slow", "fast")] == [1, 0, 1, 8]


def test_the_rate_is_never_exceeded_in_any_span_and_needs_one_timer() -> None:
    """Ten a second: no second has eleven starts, whatever its beginning, and none is left idle."""
    world = World(email=QueueConfig(rate_limit="10/s"))
    for _ in range(35):
        world.add("email")
        world.timers.advance(0.01)
    assert world.timers.planned == 1
    world.timers.advance(3)
    times = [at for at, _ in world.started_at]
    assert len(times) == 35
    # The sum of the floats is what the limit is held against.
    assert all(times[index + 10] >= times[index] + 1.0 for index in range(25))
    assert times[-1] - times[0] == pytest.approx(3.04)
    assert world.timers.planned == 0


def test_a_start_that_is_allowed_again_is_used_by_the_next_that_comes() -> None:
    """With nobody waiting no timer is needed."""
    world = World(email=QueueConfig(rate_limit="2/m"))
    for _ in range(2):
        world.add("email")
    world.timers.advance(61)
    assert world.timers.planned == 0
    world.add("email")
    assert len(world.starts) == 3


def test_nobody_overtakes_those_who_wait_for_a_timer_that_is_late() -> None:
    """The loop is busy: the time is over, and the timer has not been called yet when another one comes."""
    world = World(email=QueueConfig(rate_limit="1/s"))
    for name in ("runs", "waits"):
        world.add("email", task_id=name)
    world.timers.now += 2
    world.add("email", task_id="late")
    assert world.starts == ["runs", "waits"]


def test_the_same_rate_again_forgets_no_start() -> None:
    """Or each change would let another burst through. A lower one counts what it knows of, too."""
    world = World(email=QueueConfig(rate_limit="3/m"))
    for _ in range(5):
        world.add("email")
    world.set("email", QueueConfig(rate_limit="3/m", concurrency=100))
    world.set("email", QueueConfig(rate_limit="2/m"))
    assert len(world.starts) == 3
    world.timers.advance(61)
    assert len(world.starts) == 5


def test_lowering_below_what_runs_starts_nothing_until_it_fits() -> None:
    """The other package went on at the old limit or stood still."""
    world = World(email=QueueConfig(concurrency=8))
    for _ in range(20):
        world.add("email")
    world.set("email", QueueConfig(concurrency=3))
    for left in (7, 6, 5, 4, 3):
        world.end(next(iter(world.running)))
        assert world.count("email") == left
    world.end(next(iter(world.running)))
    assert world.count("email") == 3
    world.end_all()
    assert len(world.starts) == 20


def test_the_same_limit_again_stalls_nothing() -> None:
    """The other package's queue stood still after it, as what waited did so on a semaphore nobody released."""
    world = World(email=QueueConfig(concurrency=2))
    for _ in range(6):
        world.add("email")
    world.set("email", QueueConfig(concurrency=2))
    world.add("email")
    assert world.count("email") == 2
    world.end_all()
    assert len(world.starts) == 7


def test_raising_starts_as_many_as_fit_and_no_more() -> None:
    """The other package ran 13 under a limit of 8."""
    world = World(email=QueueConfig(concurrency=5))
    for _ in range(30):
        world.add("email")
    world.set("email", QueueConfig(concurrency=8))
    assert world.count("email") == 8
    world.set("email", NO_LIMITS)
    assert world.count("email") == 30


def test_a_limit_counts_those_that_began_without_one() -> None:
    """They run on a path that asks nobody."""
    world = World()
    lane = world.queues.lane("default")
    assert lane.free
    lane.running += 3
    world.set("default", QueueConfig(concurrency=2))
    turn = world.add()
    for started in ([], [turn.entry.record.task_id]):
        world.queues.leave(lane)
        world.queues.leave(lane) if started else None
        assert world.starts == started


def test_pause_and_resume() -> None:
    """Those that run go on, those that wait stay, in their order; whoever follows one of them is let go."""
    world = World(email=ONE)
    world.add("email", task_id="runs")
    first = world.add("email", task_id="first")
    world.set("email", ONE, paused=True)
    assert first.let_goes == 1
    second = world.add("email", task_id="second", priority=1)
    assert second.let_goes == 1
    world.end("runs")
    assert world.starts == ["runs"]
    world.set("email", ONE)
    world.end_all()
    assert world.starts == ["runs", "second", "first"]


def test_what_has_gone_takes_no_slot_and_no_start() -> None:
    """Cancelled ones leave at once; one that nobody took out is passed over."""
    world = World(email=QueueConfig(concurrency=1, rate_limit="3/h"))
    world.add("email", task_id="runs")
    cancelled, lost, last = world.add("email"), world.add("email"), world.add("email", task_id="last")
    leave = cancelled.entry.leave_line
    assert leave is not None
    leave()
    leave()
    assert (world.queues.waiting, cancelled.entry.leave_line) == (2, None)
    lost.entry.lost = True
    world.end("runs")
    assert world.starts == ["runs", "last"]
    world.end("last")
    world.add("email", task_id="third")
    assert (world.starts[-1], last.entry.leave_line, world.queues.waiting) == ("third", None, 0)


def test_a_line_that_many_leave_does_not_keep_them() -> None:
    """A paused queue whose tasks are cancelled must not fill the memory."""
    line, world = Line(), World()
    turn = world.add()
    waiters = [line.add(make_entry(str(number)), turn, now=number) for number in range(1_000)]
    for waiter in waiters[:990]:
        line.remove(waiter)
    assert len(line) == 10
    assert len(line._heap) <= 128
    assert [line.pop().entry.record.task_id for _ in range(10)] == [str(number) for number in range(990, 1_000)]
    with pytest.raises(IndexError):
        line.pop()


def entry_of(queue: str, task_id: str) -> Entry:
    """Return a new entry that was added, and has not come to its line."""
    return make_entry(task_id, queue=queue)


def test_a_full_queue_refuses_and_every_way_out_frees_a_place() -> None:
    """Start, cancellation, withdrawal, and a request that just forgot its task."""
    world = World(email=QueueConfig(concurrency=1, max_size=3))
    world.add("email", task_id="runs")
    kept = [entry_of("email", name) for name in ("a", "b", "c")]
    for entry in kept:
        world.queues.reserve(entry)
    world.queues.reserve(kept[0])
    with pytest.raises(QueueFullError, match=r"'email' is full: 3 task\(s\) wait") as refused:
        world.queues.require_room("email")
    assert (refused.value.queue, refused.value.max_size, refused.value.retry_after) == ("email", 3, 1)
    waits = world.enter(kept[0])
    with pytest.raises(QueueFullError):
        world.queues.reserve(entry_of("email", "d"))
    world.end("runs")
    assert world.starts == ["runs", "a"]
    world.queues.reserve(entry := entry_of("email", "d"))
    kept[1].withdrawn = True
    world.queues.require_room("email")
    world.queues.reserve(other := entry_of("email", "e"))
    with pytest.raises(QueueFullError):
        world.queues.require_room("email")
    waits = world.enter(other)
    other.record = other.record.evolve(status=TaskStatus.CANCELLED)
    assert waits.waiter is not None
    world.queues.require_room("email")
    world.queues.give_up(world.queues.lane("email"), waits.waiter)
    world.queues.reserve(last := entry_of("email", "f"))
    del entry, waits
    gc.collect()
    world.queues.require_room("email")
    assert last.record.queue == "email"
    world.queues.require_room("default")


@pytest.mark.parametrize(
    ("config", "paused", "seconds"),
    [
        (QueueConfig(concurrency=1, max_size=1), False, 1),
        (QueueConfig(max_size=1), True, 30),
        (QueueConfig(max_size=1, rate_limit="1/m"), False, 46),
    ],
)
def test_retry_after_fits_what_holds_the_queue_up(config: QueueConfig, *, paused: bool, seconds: int) -> None:
    """A client is not told to come back before anything can have changed."""
    world = World(email=config)
    world.set("email", config, paused=paused)
    world.add("email")
    world.timers.advance(14.5)
    if not paused:
        world.add("email")
    with pytest.raises(QueueFullError) as refused:
        world.queues.require_room("email")
    assert refused.value.retry_after == seconds


def test_names_that_are_made_up_are_forgotten_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """One queue for each customer must fill neither the memory nor the log."""
    world = World(email=ONE)
    for number in range(NAMES_TOLD + 50):
        world.add(f"customer.{number}")
        world.add(f"customer.{number}")
    world.end_all()
    assert set(world.facts()) == {"default", "email"}
    assert len(caplog.records) == NAMES_TOLD
    assert "'customer.0' is not among TaskManager(queues=…)" in caplog.text


def test_a_queue_with_an_override_stays_and_goes_with_it() -> None:
    """It is shown while nobody is in it."""
    world = World()
    world.set("reports", ONE)
    assert set(world.facts()) == {"default", "reports"}
    world.set("reports", NO_LIMITS)
    assert set(world.facts()) == {"default"}


def test_the_limits_that_the_metrics_show() -> None:
    """A queue never runs more than the process may."""
    queues = Queues(10, {"email": QueueConfig(concurrency=30), "one": ONE})
    queues.change("late", QueueConfig(concurrency=4), paused=False)
    assert queues.limits() == {"default": 10, "email": 10, "one": 1, "late": 4}
    assert Queues(None, {"email": QueueConfig(max_size=3)}).limits() == {"default": None, "email": None}


def test_the_end_lets_all_go() -> None:
    """First what is paused, later too; then everybody. Timers end."""
    world = World(3, still=ONE, slow=QueueConfig(rate_limit="1/h"))
    world.set("still", ONE, paused=True)
    still, runs, slow = world.add("still"), world.add("slow"), world.add("slow")
    assert (world.queues.waiting, world.timers.planned, runs.waiter) == (2, 1, None)
    world.queues.let_paused_go()
    late = world.add("still")
    assert (world.queues.waiting, still.let_goes, late.let_goes, slow.let_goes) == (1, 2, 1, 1)
    world.queues.close()
    assert (world.queues.waiting, world.timers.planned, slow.entry.leave_line) == (0, 0, None)
    world.queues.reset()
    world.queues.open(world.timers)
    assert [world.add("still").waiter, world.add("slow").waiter] == [None, None]
