"""Recovery times are counted from the right moments."""

from __future__ import annotations

from tests.chaos.evidence import NOBODY, Event, Line
from tests.chaos.facts import SECOND, Kill, Lock, Orphan, Row
from tests.chaos.recovery import Recovery, first_answers, percentile, recoveries
from tests.chaos.runs import Run


def told(event: Event, at: float, pid: int) -> Line:
    """Return a line of a process."""
    return Line(event, NOBODY, NOBODY, 0, pid, int(at * SECOND), 0)


LINES = [
    told(Event.UP, 1, 1), told(Event.SERVING, 2, 1),
    told(Event.UP, 12, 2), told(Event.SERVING, 13, 2),
    told(Event.UP, 14, 3), told(Event.SERVING, 14.5, 3),
]  # fmt: skip


def runs(task_id: str, *starts: float) -> dict[str, list[Run]]:
    """Return runs that began then."""
    return {task_id: [Run(task_id, "slow", 1, 1, [int(start * SECOND)]) for start in starts]}


def kill(at: float, *orphans: tuple[str, float]) -> Kill:
    """Return a kill that left these tasks, each with the time it is due."""
    return Kill(int(at * SECOND), tuple(Orphan(task_id, int(due * SECOND)) for task_id, due in orphans))


def test_it_lasts_until_the_last_orphan_has_begun_again_or_ended() -> None:
    """From the first answer of a process that came up after the kill, not of one that was there before."""
    ended = Row("b", "quick", "interrupted", 1, owner_lives=True, ended=int(13.75 * SECOND))
    (found,) = recoveries([kill(10, ("a", 0), ("b", 0))], [], LINES, runs("a", 9, 13.2, 15), {"b": ended})
    assert found == Recovery(2, 0.75, 3.75)


def test_a_wait_on_purpose_does_not_count() -> None:
    """A retry that is due later is not late."""
    (found,) = recoveries([kill(10, ("a", 14.0))], [], LINES, runs("a", 14.25), {})
    assert found == Recovery(1, 0.25, 0.25)


def test_the_time_begins_anew_with_the_next_kill() -> None:
    """The first one's restart did not get so far."""
    found = recoveries([kill(10, ("a", 0)), kill(12.5)], [], LINES, runs("a", 14.75), {})
    assert found == [Recovery(1, 0.25, 2.25)]


def test_a_locked_store_stops_the_clock() -> None:
    """Until it is free again; another lock, before the kill or after the start, has no part in it."""
    locks = [Lock(0, 9 * SECOND), Lock(11 * SECOND, 14 * SECOND), Lock(20 * SECOND, 30 * SECOND)]
    assert recoveries([kill(10, ("a", 0))], locks, LINES, runs("a", 14.25), {}) == [Recovery(1, 0.25, 0.25)]
    assert recoveries([kill(10, ("a", 0))], locks, LINES, runs("a", 13.75), {}) == [Recovery(1, 0.0, 0.0)]


def test_what_others_took_over_before_the_restart_took_no_time_after_it() -> None:
    """It counts from the kill all the same."""
    (found,) = recoveries([kill(10, ("a", 0))], [], LINES, runs("a", 10.5), {})
    assert found == Recovery(1, 0.0, 0.5)


def test_a_kill_that_left_nothing_has_no_recovery() -> None:
    """There was nothing to do."""
    assert recoveries([kill(10)], [], LINES, {}, {}) == []


def test_a_process_that_never_answered_does_not_count() -> None:
    """It was killed before."""
    assert first_answers([told(Event.UP, 3, 9), *LINES]) == [
        (1 * SECOND, 2 * SECOND), (12 * SECOND, 13 * SECOND), (14 * SECOND, int(14.5 * SECOND)),
    ]  # fmt: skip


def test_percentiles_are_of_the_values() -> None:
    """The nearest rank."""
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile([3.0, 1.0], 99) == 3.0
    assert percentile([], 50) == 0.0
