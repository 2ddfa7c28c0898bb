"""Limits that change while all is busy: never exceeded, never a stall; and how long a low priority waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fastapi_taskflow.engines.waiting import AGING, Line
from fastapi_taskflow.task.queue import QueueConfig
from tests.unit.engines.world import Waits, World
from tests.unit.fakes import make_entry

if TYPE_CHECKING:
    from random import Random

NAMES: Final = ("default", "email", "reports")
configs = st.builds(
    QueueConfig,
    concurrency=st.none() | st.integers(1, 4),
    rate_limit=st.none() | st.sampled_from(("1/s", "3/s", "5/m")),
)


class LiveChanges(RuleBasedStateMachine):
    """Tasks come, end and are cancelled, time passes, and limits change, in any order."""

    @initialize(limit=st.none() | st.integers(1, 6))
    def begin(self, limit: int | None) -> None:
        """Begin with queues without limits."""
        self.limit = limit
        self.world = World(limit)
        self.configs = dict.fromkeys(NAMES, QueueConfig())
        self.paused = dict.fromkeys(NAMES, False)
        self.turns: list[Waits] = []
        self.seen = 0
        self.starts: dict[str, list[float]] = {name: [] for name in NAMES}

    @rule(name=st.sampled_from(NAMES), priority=st.integers(-3, 3), count=st.integers(1, 8))
    def add(self, name: str, priority: int, count: int) -> None:
        """Add some tasks."""
        self.turns.extend(self.world.add(name, priority) for _ in range(count))

    @rule(pick=st.randoms(use_true_random=False), count=st.integers(1, 5))
    def end(self, pick: Random, count: int) -> None:
        """Let some that run end."""
        for _ in range(min(count, len(self.world.running))):
            self.world.end(pick.choice(sorted(self.world.running)))

    @rule(pick=st.randoms(use_true_random=False))
    def cancel(self, pick: Random) -> None:
        """Cancel one that waits."""
        waiting = [turn.entry for turn in self.turns if turn.entry.leave_line is not None]
        if waiting:
            entry = pick.choice(waiting)
            assert entry.leave_line is not None
            entry.leave_line()
            entry.withdrawn = True

    @rule(seconds=st.floats(0.01, 90))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.world.timers.advance(seconds)

    @rule(name=st.sampled_from(NAMES), config=configs, paused=st.booleans())
    def change(self, name: str, config: QueueConfig, *, paused: bool) -> None:
        """Change the limits of a queue, most often to one that it is just above or below."""
        if config.rate != self.configs[name].rate:
            # A rate counts from when it is set; the same one again forgets nothing.
            self.starts[name].clear()
        self.configs[name], self.paused[name] = config, paused
        self.world.set(name, config, paused=paused)

    @invariant()
    def nothing_started_beyond_a_limit(self) -> None:
        """Each start since the last step kept to the limits of now: a change applies at once."""
        if not hasattr(self, "world"):
            return
        for at, name in self.world.started_at[self.seen :]:
            assert not self.paused[name]
            rate = self.configs[name].rate
            before = self.starts[name]
            before.append(at)
            if rate is not None and len(before) > rate.count:
                assert at >= before[-1 - rate.count] + rate.seconds
        started = {name for _, name in self.world.started_at[self.seen :]}
        for name in started:
            most = self.configs[name].concurrency
            assert most is None or self.world.count(name) <= most
        self.seen = len(self.world.started_at)
        assert self.limit is None or len(self.world.running) <= self.limit
        assert all(self.world.queues.lane(name).running == self.world.count(name) for name in NAMES)

    @invariant()
    def nobody_waits_who_may_start(self) -> None:
        """With room in the process, each line that is not empty is held up by its own queue."""
        if not hasattr(self, "world") or (self.limit is not None and len(self.world.running) >= self.limit):
            return
        for name in NAMES:
            lane = self.world.queues.lane(name)
            if lane.line:
                out_of_starts = lane.window is not None and lane.window.wait(self.world.timers.now) > 0
                assert lane.paused or lane.full or (out_of_starts and lane.timer is not None)

    def teardown(self) -> None:
        """Whatever happened, everything ends once the limits are lifted."""
        if not hasattr(self, "world"):
            return
        for name in NAMES:
            self.world.set(name, QueueConfig())
        self.world.end_all()
        assert self.world.queues.waiting == 0


LiveChanges.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_live_changes = LiveChanges.TestCase


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(-1_000, 1_000)), min_size=1, max_size=60),
    st.integers(-1_000, 1_000),
    st.data(),
)
def test_aging_bounds_who_overtakes(others: list[tuple[float, int]], priority: int, data: st.DataObject) -> None:
    """One is overtaken by those alone that come less than AGING seconds later for each step above it."""
    line, world = Line(), World()
    turn = world.add()
    now = 500.0
    mine = line.add(make_entry("mine", priority=priority), turn, now=now)
    expected = 0
    for number, (gap, above) in enumerate(others):
        now += gap * data.draw(st.sampled_from((0.0, 1.0, AGING)))
        line.add(make_entry(str(number), priority=above), turn, now=now)
        expected += now - above * AGING < 500.0 - priority * AGING
    overtaken = 0
    while line.pop() is not mine:
        overtaken += 1
    assert overtaken == expected
