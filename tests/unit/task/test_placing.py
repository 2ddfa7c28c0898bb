"""The options of one call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.placing import AS_DEFINED, placed
from fastapi_taskflow.task.record import windowed_key

LATER = datetime(2030, 1, 2, tzinfo=UTC)


def test_no_option_at_all_makes_no_new_object() -> None:
    """The common case."""
    assert placed() is AS_DEFINED
    assert placed(tags=()) is AS_DEFINED


def test_options_are_kept() -> None:
    """Spans of time count from now."""
    before = clock.now()
    placing = placed(tags=["a"], queue="mail", priority=-3, delay=timedelta(minutes=1), expires=90, unique_for=5)
    assert (placing.tags, placing.queue, placing.priority, placing.unique_for) == (("a",), "mail", -3, 5.0)
    assert placing.run_at is not None
    assert placing.expires_at is not None
    assert placing.run_at - before == pytest.approx(60.0, abs=5.0)
    assert placing.expires_at - before == pytest.approx(90.0, abs=5.0)
    assert placing.given == {"tags", "queue", "priority", "delay", "expires", "unique_for"}


def test_points_in_time_are_exact() -> None:
    """With any time zone."""
    placing = placed(run_at=LATER, deadline=LATER + timedelta(hours=1))
    assert (placing.run_at, placing.expires_at) == (LATER.timestamp(), LATER.timestamp() + 3600)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": -1}, "delay must be 0 or more seconds"),
        ({"delay": "5"}, "delay must be a number"),
        ({"delay": float("nan")}, "delay must be 0 or more seconds"),
        ({"run_at": datetime(2030, 1, 1)}, "run_at must be a datetime with a time zone"),
        ({"run_at": 5}, "run_at must be a datetime with a time zone"),
        ({"delay": 5, "run_at": LATER}, "give delay or run_at, not both"),
        ({"expires": 5, "deadline": LATER}, "give expires or deadline, not both"),
        ({"eager": True, "delay": 5}, "give eager or delay, not both"),
        ({"unique_for": 0}, "unique_for must be above zero"),
        ({"queue": "no spaces"}, "a queue's name must be"),
        ({"queue": ""}, "a queue's name must be"),
        ({"priority": 1.5}, "priority must be a whole number"),
        ({"priority": 1_001}, "priority must be a whole number"),
        ({"tags": "one"}, "tags must be a list of strings"),
        ({"idempotency_key": ""}, "idempotency_key must be a string"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        placed(**options)


def test_windows_follow_each_other() -> None:
    """One key within a window, another one in the next; other arguments are another task."""
    first = windowed_key("args", seconds=60, now=119.9)
    assert first == windowed_key("args", seconds=60, now=60.0)
    assert first != windowed_key("args", seconds=60, now=120.0)
    assert first != windowed_key("other", seconds=60, now=60.0)
