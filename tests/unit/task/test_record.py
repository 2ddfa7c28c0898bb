"""The record: its versions, its derived values, and the ids."""

from __future__ import annotations

import uuid

import pytest

from fastapi_taskflow.task.record import FINISHED, LIVE, TaskRecord, TaskStatus, keyed_task_id, new_task_id


def make(**changes: object) -> TaskRecord:
    """Return a pending record with ``changes``."""
    base = TaskRecord("id", "send_email", TaskStatus.PENDING, 100.0)
    return base._replace(**changes)  # type: ignore[arg-type]


def test_evolve_makes_the_next_version_and_keeps_the_rest() -> None:
    """A change leaves the old record alone."""
    old = make(tags=("a",), version=4)
    new = old.evolve(status=TaskStatus.RUNNING, start_time=101.0)
    assert (new.version, new.status, new.start_time, new.tags) == (5, TaskStatus.RUNNING, 101.0, ("a",))
    assert (old.version, old.status, old.start_time) == (4, TaskStatus.PENDING, None)


def test_records_are_frozen() -> None:
    """Nobody changes a fact in place."""
    with pytest.raises(AttributeError):
        make().status = TaskStatus.FAILED  # type: ignore[misc]


def test_every_status_is_either_live_or_finished() -> None:
    """There is no third kind."""
    assert set(TaskStatus) == LIVE | FINISHED
    assert not LIVE & FINISHED


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(None, None, None), (1.0, None, None), (1.0, 3.5, 2.5), (3.0, 2.0, 0.0)]
)
def test_duration(start: float | None, end: float | None, expected: float | None) -> None:
    """Seconds of the last attempt; never negative when the clock was set back."""
    assert make(start_time=start, end_time=end).duration == expected


def test_retries_used_counts_attempts_after_the_first() -> None:
    """No attempt and one attempt are no retries."""
    assert [make(attempt=n).retries_used for n in range(4)] == [0, 0, 1, 2]


def test_trace_id_is_cut_from_the_traceparent() -> None:
    """W3C: version, trace id, span id, flags."""
    assert make(traceparent=f"00-{'a' * 32}-{'b' * 16}-01").trace_id == "a" * 32
    assert make().trace_id is None


def test_new_ids_are_version_7_and_sort_by_time() -> None:
    """They are valid UUIDs, distinct, and rise with the clock."""
    ids = [new_task_id() for _ in range(1_000)]
    assert len(set(ids)) == len(ids)
    for each in (ids[0], ids[-1]):
        parsed = uuid.UUID(each)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert [each[:13] for each in ids] == sorted(each[:13] for each in ids)


def test_a_key_decides_the_id_for_its_function() -> None:
    """The same in every process; another function or key has another one; odd text is no problem."""
    assert keyed_task_id("f", "k") == keyed_task_id("f", "k")
    assert keyed_task_id("f", "k") != keyed_task_id("g", "k")
    assert keyed_task_id("f", "k") != keyed_task_id("f", "l")
    assert uuid.UUID(keyed_task_id("f", "\ud800\0")).version == 5
