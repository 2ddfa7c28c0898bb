"""Times as people and JSON see them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow import clock

if TYPE_CHECKING:
    from pathlib import Path


def test_iso_text_is_utc_with_microseconds() -> None:
    """Always the same width, so that it sorts as text."""
    moment = datetime(2026, 11, 24, 22, 5, tzinfo=UTC)
    assert clock.to_iso(moment.timestamp()) == "2026-11-24T22:05:00.000000Z"
    assert clock.to_datetime(moment.timestamp()) == moment


def test_now_is_the_wall_clock() -> None:
    """Within a second of the standard library's."""
    assert abs(clock.now() - datetime.now(UTC).timestamp()) < 1


async def test_a_call_is_made_when_it_is_due() -> None:
    """Never before, whatever the loop's own clock says."""
    due = clock.now() + 0.02
    called = asyncio.get_running_loop().create_future()
    clock.call_at(due, lambda: called.set_result(clock.now()))
    assert await asyncio.wait_for(called, 5) >= due


async def test_a_timer_looks_again_when_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes by the time of day: a loop's timer that rings too early is wound up again."""
    behind = iter((0.0, 0.0, -1.0, -0.01, 5.0))
    start = clock.now()
    monkeypatch.setattr(clock, "now", lambda: start + next(behind, 5.0))
    called = asyncio.Event()
    clock.call_at(start + 0.001, called.set)
    await asyncio.wait_for(called.wait(), 5)
    assert clock.now() == start + 5


async def test_a_cancelled_call_is_not_made() -> None:
    """Also after a sleep that was cut off."""
    called: list[str] = []
    clock.call_at(clock.now() + 0.001, called.append, "timer").cancel()
    sleep = asyncio.create_task(clock.sleep_until(clock.now() + 100))
    await asyncio.sleep(0)
    sleep.cancel()
    await clock.sleep_until(clock.now() + 0.005)
    assert called == []
    assert sleep.cancelled()


def test_everybody_asks_the_module_for_the_time(project_root: Path) -> None:
    """A name that is imported from the clock would miss the clock of a test."""
    sources = (project_root / "src").rglob("*.py")
    assert [str(path) for path in sources if "from fastapi_taskflow.clock import" in path.read_text()] == []
