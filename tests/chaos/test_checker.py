"""Each broken promise is found in made-up evidence, and what is allowed is not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.checker import POISON, Broken, check, counted, overlaps, repeated_at_most_once, taken_over_alive
from tests.chaos.evidence import Event
from tests.chaos.facts import SECOND, Accepted, Hit, Row
from tests.chaos.faults import Fault
from tests.chaos.runs import Run

TASK = "t1"


def at(*seconds: float) -> list[int]:
    """Return these times as the evidence has them."""
    return [int(each * SECOND) for each in seconds]


def a_run(*effects: float, kind: str = "slow", attempt: int = 1, pid: int = 1, ended: Event | None = Event.END) -> Run:
    """Return a run that did something at these seconds."""
    return Run(TASK, kind, attempt, pid, at(*effects), ended)


def a_row(status: str = "success", **facts: Any) -> Row:
    """Return the task as the store has it."""
    return Row(
        **{"kind": "slow", "attempt": 1, "owner_lives": True, "ended": 5 * SECOND, **facts}, task_id=TASK, status=status
    )


def hit(*pids: int, since: float = 0, until: float = 100) -> Hit:
    """Return a fault that met these processes."""
    return Hit("a fault", frozenset(pids), *at(since, until))


def accepted(task_id: str = TASK, key: str | None = None) -> Accepted:
    """Return what the client was told."""
    return Accepted(task_id, "slow", key, SECOND)


def broken(
    *runs: Run, row: Row | None = None, hits: tuple[Hit, ...] = (), told: tuple[Accepted, ...] = ()
) -> set[Broken]:
    """Return which promises are broken."""
    rows = {row.task_id: row} if row is not None else {}
    found = check(told, rows, {TASK: runs} if runs else {}, hits)
    return {violation.broken for violation in found}


def test_a_task_that_was_accepted_and_ran_breaks_nothing() -> None:
    """The rule."""
    assert broken(a_run(1, 2), row=a_row(), told=(accepted(),)) == set()


def test_an_accepted_task_that_is_not_in_the_store_is_lost() -> None:
    """Also if it ran."""
    assert broken(told=(accepted(),)) == {Broken.LOST}
    assert broken(a_run(1, 2), told=(accepted(),)) == {Broken.LOST, Broken.NOT_STORED}


@pytest.mark.parametrize("status", ["rejected", "cancelled"])
def test_an_accepted_task_that_was_withdrawn_is_lost(status: str) -> None:
    """It was promised, and nobody asked to cancel it."""
    assert Broken.LOST in broken(row=a_row(status), told=(accepted(),))
    assert Broken.LOST not in broken(row=a_row(status))


@pytest.mark.parametrize(("status", "lives"), [("running", False), ("running", True), ("pending", False)])
def test_a_task_that_never_ends_is_unsettled(status: str, *, lives: bool) -> None:
    """Whether its owner lives is in the detail."""
    row = a_row(status, owner_lives=lives)
    (found,) = check([accepted()], {TASK: row}, {}, [])
    assert found.broken is Broken.UNSETTLED
    assert ("its owner lives" in found.detail) is lives


def test_two_runs_that_write_by_turns_overlap() -> None:
    """Whichever ends first, and whether the first is cut off later or not."""
    second = a_run(2, 4, attempt=2, pid=2)
    for first in (a_run(1, 3), a_run(1, 3, 5), a_run(1, 3, ended=None)):
        assert {each.broken for each in overlaps([first, second])} == {Broken.OVERLAP}
        assert {each.broken for each in overlaps([second, first])} == {Broken.OVERLAP}


def test_a_run_inside_another_one_that_goes_on_later_is_a_late_effect() -> None:
    """The first one was frozen, and was not stopped when it thawed."""
    assert {each.broken for each in overlaps([a_run(1, 9), a_run(4, 6, attempt=2, pid=2)])} == {Broken.LATE}


def test_runs_one_after_another_do_not_overlap() -> None:
    """A run that was cut off ends with the last thing it did."""
    assert list(overlaps([a_run(1, 1.5, ended=None), a_run(2, 3, attempt=2, pid=2), a_run(4, 5, attempt=3)])) == []


def test_the_third_of_three_runs_is_held_against_the_first() -> None:
    """Not only neighbours are compared."""
    runs = [a_run(1, 9), a_run(2, ended=None, attempt=2, pid=2), a_run(5, 6, attempt=3, pid=3)]
    assert [each.broken for each in overlaps(runs)] == [Broken.LATE, Broken.LATE]


def test_a_task_that_ran_again_without_a_fault_is_repeated() -> None:
    """No process was hit, or another one, or earlier, or later."""
    runs = (a_run(1, 2), a_run(5, 6, attempt=2, pid=2))
    row = a_row(attempt=2)
    assert broken(*runs, row=row) == {Broken.REPEATED}
    assert broken(*runs, row=row, hits=(hit(2),)) == {Broken.REPEATED}
    assert broken(*runs, row=row, hits=(hit(1, until=0.5),)) == {Broken.REPEATED}
    assert broken(*runs, row=row, hits=(hit(1, since=5.5),)) == {Broken.REPEATED}
    assert broken(*runs, row=row, hits=(hit(1, since=3),)) == set()


def test_a_task_at_most_once_may_begin_again_only_if_the_store_did_not_know_that_it_ran() -> None:
    """Then it is given the same attempt again."""
    first = a_run(1, kind="quick", ended=None)
    hits = (hit(1),)
    row = a_row(kind="quick", attempt=2)
    assert broken(first, a_run(5, 6, kind="quick", attempt=2, pid=2), row=row, hits=hits) == {Broken.REPEATED}
    same = a_run(5, 6, kind="quick", attempt=1, pid=2)
    assert broken(first, same, row=a_row(kind="quick"), hits=hits) == set()
    assert repeated_at_most_once({"a": [first, same], "b": [first], "c": [a_run(1), a_run(2)]}) == 1


def test_a_retry_needs_no_fault() -> None:
    """The attempt before it failed, and it is the next one."""
    failed = a_run(1, 2, kind="fails_first", ended=Event.FAIL)
    row = a_row(kind="fails_first", attempt=2)
    assert broken(failed, a_run(3, 4, kind="fails_first", attempt=2), row=row) == set()
    late = a_row(kind="fails_first", attempt=3)
    assert broken(failed, a_run(3, 4, kind="fails_first", attempt=3), row=late) == {Broken.REPEATED}


@pytest.mark.parametrize(
    ("row", "runs"),
    [
        (a_row("success"), ()),
        (a_row("success"), (a_run(1, ended=None),)),
        (a_row("success", attempt=2), (a_run(1, 2),)),
        (a_row("success", kind="fails_first"), (a_run(1, 2, kind="fails_first", ended=Event.FAIL),)),
        (a_row("failed", error_type="ValueError"), (a_run(1, ended=None),)),
        (a_row("failed", error_type=POISON), (a_run(1, ended=None),)),
        (a_row("interrupted"), (a_run(1, ended=None),)),
        (a_row("rejected"), (a_run(1, 2),)),
        (a_row("cancelled"), (a_run(1, ended=None),)),
    ],
)
def test_a_status_that_the_evidence_denies_is_found(row: Row, runs: tuple[Run, ...]) -> None:
    """Each final status has its own evidence."""
    assert broken(*runs, row=row) == {Broken.DISAGREES}


@pytest.mark.parametrize(
    ("row", "runs"),
    [
        (a_row("interrupted", kind="quick"), ()),
        (a_row("interrupted", kind="quick"), (a_run(1, 2, kind="quick"),)),
        (a_row("rejected"), ()),
    ],
)
def test_what_a_crash_may_leave_is_allowed(row: Row, runs: tuple[Run, ...]) -> None:
    """Its end may not be stored, its start not be reached."""
    assert broken(*runs, row=row) == set()


def test_a_task_that_was_cut_off_too_often_may_be_parked() -> None:
    """After the fourth time."""
    runs = [a_run(n, attempt=n, pid=n, ended=None) for n in range(1, 5)]
    row = a_row("failed", attempt=4, error_type=POISON)
    assert broken(*runs, row=row, hits=(hit(1, 2, 3, 4),)) == set()


def test_what_was_taken_from_a_stopped_process_is_counted() -> None:
    """Another process began it before the stop was over; what was cut off in another way does not count."""
    runs = {TASK: [a_run(1, ended=None), a_run(5, 6, attempt=2, pid=2)]}
    stop = Hit(Fault.FREEZE_PAST_LEASE, frozenset({1}), *at(2, 8))
    assert taken_over_alive(runs, [stop]) == 1
    assert taken_over_alive(runs, [hit(1, since=2, until=8)]) == 0
    assert taken_over_alive(runs, [stop, Hit(Fault.KILL_ALL, frozenset({1}), *at(3, 4))]) == 0
    assert taken_over_alive(runs, [stop, Hit(Fault.KILL_ALL, frozenset({1}), *at(7, 8))]) == 1
    assert taken_over_alive(runs, [Hit(Fault.FREEZE_PAST_LEASE, frozenset({2}), *at(2, 8))]) == 0
    assert taken_over_alive(runs, [Hit(Fault.FREEZE_PAST_LEASE, frozenset({1}), *at(2, 4))]) == 0


def test_one_key_with_two_ids_is_found() -> None:
    """The same id twice is as it should be."""
    rows = {each: Row(each, "keyed", "success", 1, owner_lives=True, ended=SECOND) for each in ("a", "b")}
    runs = {each: [Run(each, "keyed", 1, 1, at(1, 2), Event.END)] for each in rows}
    once = [accepted("a", "k"), accepted("a", "k"), accepted("b", "other")]
    assert check(once, rows, runs, []) == []
    (found,) = check([*once, accepted("b", "k")], rows, runs, [])
    assert found.broken is Broken.TWO_IDS


def test_broken_promises_are_counted() -> None:
    """Those that were kept as well."""
    counts = counted(check([accepted(), accepted("t2")], {}, {}, []))
    assert counts[Broken.LOST] == 2
    assert sum(counts.values()) == 2
    assert set(counts) == set(Broken)
