"""What the arguments of task_progress mean."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_taskflow.task.context import task_progress
from fastapi_taskflow.task.progress import progress_of


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0.4, None, None), (0.4, None)),
        ((0.4, "resizing", None), (0.4, "resizing")),
        ((3, 12, None), (0.25, None)),
        ((3, 12, "resizing"), (0.25, "resizing")),
        ((0, 1.5, None), (0.0, None)),
        ((1, None, "a\0b"), (1.0, "a\\x00b")),
    ],
)
def test_a_part_or_a_number_of_a_total(arguments: Any, expected: Any) -> None:
    """With or without a text, which may come second."""
    assert progress_of(*arguments) == expected


@pytest.mark.parametrize(
    "arguments",
    [(1.1,), (-0.1,), (float("nan"),), (5, 4), (0, 0), (1, -1), ("half",), (True,), (1, True), (0.5, "a", "b")],
)
def test_what_is_no_progress_is_refused(arguments: Any) -> None:
    """Also outside of a task, so that a test finds it."""
    with pytest.raises(ValueError, match=r"must be|takes one"):
        task_progress(*arguments)


def test_outside_of_a_task_it_does_nothing() -> None:
    """Shared code may use it."""
    task_progress(0.5, "half")
