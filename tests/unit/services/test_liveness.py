"""Who lives: heartbeats as this process sees them, and processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time

import pytest

from fastapi_taskflow.services.heartbeat import this_instance
from fastapi_taskflow.services.liveness import Liveness, pid_start_time, process_exists
from fastapi_taskflow.store import Instance

LEASE = 15.0


def other(**changes: object) -> Instance:
    """Return another instance on another host, that has just beaten."""
    base = Instance("other", "elsewhere", 1, 5, 0.0, 100.0, 0.0)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


class Watch:
    """A `Liveness` with a clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.me = this_instance()
        self.now = 1_000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.liveness = Liveness(self.me, LEASE)

    def dead(self, *instances: Instance, after: float = 0.0, stopped: float = 0.0) -> set[str]:
        """Look some seconds later; ``stopped``: how long this process stood still after it had asked."""
        self.now += after
        asked_at = self.now
        self.now += stopped
        return set(self.liveness.dead(instances, asked_at))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Nothing was seen yet."""
    return Watch(monkeypatch)


def test_this_instance_is_new_each_time_and_exists() -> None:
    """The id is per start, never the host's name."""
    first, second = this_instance(), this_instance()
    assert first.instance_id != second.instance_id
    assert (first.pid, process_exists(first)) == (os.getpid(), True)


def test_one_whose_beat_changes_lives_whatever_its_clock_says(watch: Watch) -> None:
    """Only this process's own monotonic clock counts, once it has been watched."""
    for beat in (100.0, 50.0, 9_000.0, 8_999.0):
        assert watch.dead(other(heartbeat_at=beat, age=beat), after=LEASE if beat != 100.0 else 0.0) <= (
            {"other"} if beat == 100.0 else set()
        )


def test_one_that_is_silent_for_a_lease_is_dead(watch: Watch) -> None:
    """Not a moment before; and it lives again when it beats again."""
    assert not watch.dead(other())
    assert not watch.dead(other(), after=LEASE)
    assert watch.dead(other(), after=0.1) == {"other"}
    assert not watch.dead(other(heartbeat_at=101.0), after=1.0)


def test_the_first_look_at_another_host_trusts_the_stores_clock(watch: Watch) -> None:
    """What died before this process came need not be watched for a lease."""
    assert watch.dead(other(age=LEASE + 0.1)) == {"other"}
    assert not Liveness(watch.me, LEASE).dead([other(age=LEASE)], watch.now)


def test_an_old_beat_on_this_host_is_watched_first(watch: Watch) -> None:
    """Its process exists, so the clock may just have been set."""
    mine = other(host=watch.me.host, pid=watch.me.pid, pid_started=watch.me.pid_started, age=3_600.0)
    assert not watch.dead(mine)
    assert watch.dead(mine, after=LEASE + 0.1) == {"other"}


def test_time_for_which_this_process_was_stopped_does_not_count(watch: Watch) -> None:
    """It read the beat before it was stopped, and judges afterwards."""
    assert not watch.dead(other())
    assert not watch.dead(other(), after=1.0, stopped=600.0)
    assert not watch.dead(other(heartbeat_at=101.0))


def test_after_an_outage_everybody_gets_a_whole_lease(watch: Watch) -> None:
    """Nobody could beat while the store took nothing."""
    assert not watch.dead(other())
    watch.now += 600.0
    watch.liveness.reset()
    assert not watch.dead(other())
    assert not watch.dead(other(), after=LEASE)
    assert watch.dead(other(), after=0.1) == {"other"}


def test_this_one_always_lives(watch: Watch) -> None:
    """Even when its own row is old."""
    assert not watch.dead(dataclasses.replace(watch.me, age=1e6))
    assert not watch.dead(dataclasses.replace(watch.me, age=1e6), after=1e6)


def test_a_process_that_is_gone_is_dead_at_once(watch: Watch) -> None:
    """On this host nobody waits for the lease."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = other(host=watch.me.host, pid=child.pid, pid_started=pid_start_time(child.pid) or 0)
    assert not watch.dead(here)
    child.stdin.close()  # type: ignore[union-attr]
    child.wait()
    assert watch.liveness.dead([here], watch.now) == {"other": 100.0}


def test_a_pid_that_was_given_to_another_process_is_no_match(watch: Watch) -> None:
    """The start time tells them apart; where it is unknown, the pid counts."""
    assert not process_exists(other(pid=watch.me.pid, pid_started=watch.me.pid_started + 1))
    assert process_exists(other(pid=watch.me.pid, pid_started=0))
