"""Lines of evidence survive the writing and reading, and become runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.chaos.evidence import WIDTH, Event, Evidence, Line, Witness, parsed
from tests.chaos.runs import runs_of

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
LONGEST_ID = "01a21067-0ef8-7e31-a7f9-4f46de0bfad1"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Also while more is written; half a line waits for its other half."""
    path = tmp_path / "evidence.txt"
    evidence = Evidence(path)
    assert evidence.lines() == []
    witness = Witness(str(path))
    witness.write(Event.UP)
    witness.write(Event.START, LONGEST_ID, "fails_first", 2)
    assert [line.event for line in evidence.lines()] == [Event.UP, Event.START]
    with path.open("ab") as file:
        file.write(b"end x")
    assert len(evidence.lines()) == 2
    line = evidence.lines()[1]
    assert (line.task_id, line.kind, line.attempt, line.pid) == (LONGEST_ID, "fails_first", 2, os.getpid())
    assert line.at > evidence.lines()[0].at


def test_no_line_crosses_a_page(tmp_path: Path) -> None:
    """The longest facts fit into the width, and the width into the page."""
    path = tmp_path / "evidence.txt"
    Witness(str(path)).write(Event.SERVING, LONGEST_ID, "x" * 14, 999)
    assert path.stat().st_size == WIDTH
    assert PAGE % WIDTH == 0


def test_what_is_no_line_is_refused() -> None:
    """A damaged file must not pass as evidence."""
    with pytest.raises(ValueError, match="values to unpack"):
        parsed(b"start x\n")


def line(event: Event, at: int, *, attempt: int = 1, pid: int = 1) -> Line:
    """Return a line of the one task."""
    return Line(event, "t1", "slow", attempt, pid, at, at)


def test_lines_become_runs() -> None:
    """By process and attempt; ``stopped`` is no effect; the same attempt again is another run."""
    runs = runs_of([
        Line(Event.UP, "-", "-", 0, 1, 0, 0),
        line(Event.START, 1), line(Event.STEP, 2), line(Event.STOPPED, 9),
        line(Event.START, 5, attempt=2, pid=2), line(Event.END, 6, attempt=2, pid=2),
        line(Event.START, 10), line(Event.FAIL, 11),
    ])  # fmt: skip
    first, second, third = runs["t1"]
    assert (first.effects, first.ended) == ([1, 2], None)
    assert (second.effects, second.ended, second.pid) == ([5, 6], Event.END, 2)
    assert (third.start, third.last, third.ended) == (10, 11, Event.FAIL)
    assert list(runs) == ["t1"]


def test_an_end_without_a_start_is_refused() -> None:
    """The evidence itself would be wrong."""
    with pytest.raises(ValueError, match="no start before it"):
        runs_of([line(Event.END, 1)])
