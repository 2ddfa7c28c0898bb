"""Times of crontab lines, above all where clocks are set."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.cron import CronTimes, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterator

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def at(text: str, zone: str) -> float:
    """The first instant at which clocks of the zone show this."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def instants(times: CronTimes, after: float) -> Iterator[float]:
    """All times after an instant."""
    found = times.after(after)
    while found is not None:
        yield found
        found = times.after(found)


def shown(line: str, zone: str, after: str, number: int) -> list[str]:
    """What clocks show at the next times: month, day, time and offset."""
    found = islice(instants(CronTimes(line, ZoneInfo(zone)), at(after, zone)), number)
    return [datetime.fromtimestamp(each, ZoneInfo(zone)).strftime("%m-%d %H:%M %z") for each in found]


@pytest.mark.parametrize(
    ("line", "zone", "after", "expected"),
    [
        # Skipped: 02:00 to 03:00 in Berlin and New York, 02:00 to 02:30 on Lord Howe.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 02:30 +0200"]),
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08 03:00 -0400", "03-09 02:30 -0400"]),
        ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["10-04 02:30 +1100", "10-05 02:15 +1100"]),
        ("0 3 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 03:00 +0200"]),
        # Several that are skipped come as one; so does one with another that comes just then.
        ("0,20,40 2 * * *", BERLIN, "2026-03-29T01:30", ["03-29 03:00 +0200", "03-30 02:00 +0200"]),
        ("0 2-3 * * *", BERLIN, "2026-03-29T01:30", ["03-29 03:00 +0200", "03-30 02:00 +0200"]),
        # Repeated: 02:00 to 03:00 in Berlin, 01:00 to 02:00 in New York, 01:30 to 02:00 on Lord Howe.
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["10-25 02:30 +0200", "10-26 02:30 +0100"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["11-01 01:30 -0400", "11-02 01:30 -0500"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["04-05 01:45 +1100", "04-06 01:45 +1030"]),
        # Lines that begin with a star follow the clock.
        ("*/30 * * * *", BERLIN, "2026-03-29T01:00", ["03-29 01:30 +0100", "03-29 03:00 +0200", "03-29 03:30 +0200"]),
        (
            "*/30 * * * *",
            BERLIN,
            "2026-10-25T02:00",
            ["10-25 02:30 +0200", "10-25 02:00 +0100", "10-25 02:30 +0100", "10-25 03:00 +0100"],
        ),
        ("5 * * * *", NEW_YORK, "2026-11-01T00:30", ["11-01 01:05 -0400", "11-01 01:05 -0500", "11-01 02:05 -0500"]),
        ("0 * * * *", LORD_HOWE, "2026-10-04T00:30", ["10-04 01:00 +1030", "10-04 03:00 +1100"]),
        ("40 * * * *", LORD_HOWE, "2026-04-05T01:00", ["04-05 01:40 +1100", "04-05 01:40 +1030", "04-05 02:40 +1030"]),
        # Clocks that were set by half an hour leave the rest of the day as it is.
        ("0 */6 * * *", LORD_HOWE, "2026-10-04T00:01", ["10-04 06:00 +1100", "10-04 12:00 +1100"]),
        ("0 */6 * * *", LORD_HOWE, "2026-04-05T00:01", ["04-05 06:00 +1030", "04-05 12:00 +1030"]),
        # Far away, through several changes of clocks.
        ("* 0 29 2 *", BERLIN, "2025-03-01T00:00", ["02-29 00:00 +0100", "02-29 00:01 +0100"]),
        ("0 9 * * MON-FRI", NEW_YORK, "2026-11-27T12:00", ["11-30 09:00 -0500", "12-01 09:00 -0500"]),
        ("@daily", BERLIN, "2026-03-28T12:00", ["03-29 00:00 +0100", "03-30 00:00 +0200"]),
    ],
)
def test_the_next_times(line: str, zone: str, after: str, expected: list[str]) -> None:
    """What clocks show, with their offset, at the times that follow."""
    assert shown(line, zone, after, len(expected)) == expected


def test_one_begun_within_the_repeated_hour_does_not_look_back() -> None:
    """From the second 02:15 on, the next 02:30 of a fixed line is tomorrow's; of a flowing one it is in 15 minutes."""
    second = datetime(2026, 10, 25, 2, 15, fold=1, tzinfo=ZoneInfo(BERLIN)).timestamp()
    fixed = CronTimes("30 2 * * *", ZoneInfo(BERLIN)).after(second)
    flowing = CronTimes("30 * * * *", ZoneInfo(BERLIN)).after(second)
    assert fixed == at("2026-10-26T02:30", BERLIN)
    assert flowing == second + 900


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "for seconds give every="),
        ("61 * * * *", "Bad minute"),
        ("* * * * FOO", "Bad day-of-week"),
        ("0 0 31 2 *", "Bad day-of-month"),
        ("@reboot", "five fields"),
        ("0 0 30 2 MON", ""),
    ],
)
def test_a_line_that_cannot_be_is_refused(line: str, reason: str) -> None:
    """With what is wrong with it. One that never comes by its day may come by its day of the week."""
    if not reason:
        assert CronTimes(line, ZoneInfo("UTC")).after(0.0) is not None
        return
    with pytest.raises(ConfigurationError, match=reason):
        CronTimes(line, ZoneInfo("UTC"))


@pytest.mark.parametrize("wrong", ["Europe/Atlantis", "", "../../etc/passwd", "Europe", 5, timezone.min, b"UTC"])
def test_a_zone_that_is_none_is_refused(wrong: Any) -> None:
    """With an example of a right one."""
    with pytest.raises(ConfigurationError, match="Europe/Berlin"):
        zone_of(wrong)


def test_a_zone_may_be_given_itself() -> None:
    """By name, as a ZoneInfo, or as Python's own UTC."""
    assert zone_of(BERLIN) == zone_of(ZoneInfo(BERLIN)) == ZoneInfo(BERLIN)
    assert zone_of(UTC).key == "UTC"


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the package works without it."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ConfigurationError, match=r"extra 'cron'.*\[cron\]"):
        CronTimes("* * * * *", ZoneInfo("UTC"))
