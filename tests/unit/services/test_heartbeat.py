"""Who lives: heartbeats and processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

from fastapi_taskflow.services.heartbeat import live_instances, pid_start_time, process_exists, this_instance
from fastapi_taskflow.store import Instance


def other(**changes: object) -> Instance:
    """Return another instance on another host, that has just beaten."""
    base = Instance("other", "elsewhere", 1, 5, 0.0, 100.0)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_this_instance_is_new_each_time_and_exists() -> None:
    """The id is per start, never the host's name."""
    first, second = this_instance(), this_instance()
    assert first.instance_id != second.instance_id
    assert (first.pid, process_exists(first)) == (os.getpid(), True)


def test_an_instance_lives_within_its_lease() -> None:
    """On another host only the heartbeat tells."""
    me = this_instance()
    assert live_instances([other()], me=me, lease=15, now=115.0) == {"other"}
    assert live_instances([other()], me=me, lease=15, now=115.1) == set()


def test_this_one_always_lives() -> None:
    """Even when its own row is old."""
    me = dataclasses.replace(this_instance(), heartbeat_at=0.0)
    assert live_instances([me], me=me, lease=15, now=1_000.0) == {me.instance_id}


def test_a_process_that_is_gone_is_dead_at_once() -> None:
    """On this host nobody waits for the lease."""
    me = this_instance()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = other(host=me.host, pid=child.pid, pid_started=pid_start_time(child.pid) or 0)
    assert live_instances([here], me=me, lease=15, now=101.0) == {"other"}
    child.communicate(b"\n", timeout=10)
    assert live_instances([here], me=me, lease=15, now=101.0) == set()


def test_a_pid_that_was_given_to_another_process_is_no_match() -> None:
    """The start time tells them apart; where it is unknown, the pid counts."""
    me = this_instance()
    assert not process_exists(other(pid=me.pid, pid_started=me.pid_started + 1))
    assert process_exists(other(pid=me.pid, pid_started=0))
