"""Which bucket of the duration histogram a task belongs to."""

from __future__ import annotations

from bisect import bisect_left

from fastapi_taskflow.store import DURATION_BOUNDS

TIMED = frozenset({"success", "failed"})
"""Statuses whose durations are counted."""


def timed(status: str, start: float | None, end: float | None) -> tuple[int, float] | None:
    """Return the bucket and the seconds that a task adds to the histogram, or None if it adds nothing."""
    if status not in TIMED or start is None or end is None:
        return None
    seconds = max(0.0, end - start)  # the clock may have been set back meanwhile
    return bisect_left(DURATION_BOUNDS, seconds), seconds
