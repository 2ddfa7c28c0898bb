"""Times as people and JSON see them."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi_taskflow import clock


def test_iso_text_is_utc_with_microseconds() -> None:
    """Always the same width, so that it sorts as text."""
    moment = datetime(2026, 11, 24, 22, 5, tzinfo=UTC)
    assert clock.to_iso(moment.timestamp()) == "2026-11-24T22:05:00.000000Z"
    assert clock.to_datetime(moment.timestamp()) == moment


def test_now_is_the_wall_clock() -> None:
    """Within a second of the standard library's."""
    assert abs(clock.now() - datetime.now(UTC).timestamp()) < 1
