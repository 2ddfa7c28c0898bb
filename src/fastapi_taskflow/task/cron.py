"""Times of a crontab line in a time zone, through the changes of its clocks.

A library reads the line and finds the times that match on a clock which nobody ever sets. What becomes of them where
clocks are set is decided here, as cron of Debian does it:

- A line for fixed times (neither its minutes nor its hours begin with ``*``) comes once a day that it names. A time
  that the clocks skip comes as they have been set forward, and several of them together. One that they show twice comes
  the first time.
- Any other line, such as one for every quarter of an hour, follows the clock on the wall: not while hours are skipped,
  and again while they are repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from fastapi_taskflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    NextTime = Callable[[str, datetime], datetime | None]

FIELDS: Final = 5
NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
STRIDE: Final = 12 * 3600
"""Seconds: less than from any change of clocks to the next."""

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - times on a clock that nobody sets have no zone


@dataclass(frozen=True, slots=True)
class CronTimes:
    """The times that a crontab line names.

    Attributes:
        line: Five fields, or a nickname such as ``@daily``.
        zone: The time zone of its hours.
    """

    line: str
    zone: ZoneInfo
    _fields: str = field(init=False, repr=False, compare=False)
    _next: NextTime = field(init=False, repr=False, compare=False)
    _is_fixed: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the line.

        Raises:
            ConfigurationError: If it cannot be read, names no time, or the library is not installed.
        """
        fields = NICKNAMES.get(self.line.strip().lower(), self.line).split()
        if len(fields) != FIELDS:
            msg = (
                f"cron must have five fields (minute, hour, day of month, month, day of week), not {self.line!r}; "
                "for seconds give every="
            )
            raise ConfigurationError(msg)
        object.__setattr__(self, "_fields", " ".join(fields))
        object.__setattr__(self, "_next", _library(self.line))
        object.__setattr__(self, "_is_fixed", not (fields[0].startswith("*") or fields[1].startswith("*")))
        if self._next(self._fields, datetime.now()) is None:  # noqa: DTZ005 - as above
            msg = f"cron={self.line!r} names a day that never comes"
            raise ConfigurationError(msg)

    def __str__(self) -> str:
        """Return what it says, to tell it from another one."""
        return f"cron {self._fields} {self.zone.key}"

    def after(self, instant: float) -> float | None:
        """Return the first time after ``instant``, both in seconds since the Unix epoch; None if none ever comes."""
        return self._fixed(instant) if self._is_fixed else self._flowing(int(instant // 1))

    def _fixed(self, instant: float) -> float | None:
        shown: datetime | None = datetime.fromtimestamp(instant, self.zone).replace(tzinfo=None)
        while shown is not None and (shown := self._next(self._fields, shown)) is not None:
            found = self._when_first_shown(shown)
            if found > instant:
                return found
        return None

    def _when_first_shown(self, shown: datetime) -> float:
        """Return when clocks first show this time, or have been set forward over it."""
        earlier = shown.replace(tzinfo=self.zone)
        found = int(earlier.timestamp())
        if datetime.fromtimestamp(found, self.zone).replace(tzinfo=None) == shown:
            return float(found)
        before_change = int(earlier.replace(fold=1).timestamp())
        return float(self._change(before_change, found, self._offset(before_change)) or found)

    def _flowing(self, instant: int) -> float | None:
        offset = self._offset(instant)
        while True:
            shown = self._next(self._fields, _EPOCH + timedelta(seconds=instant + offset))
            if shown is None:
                return None
            found = int((shown - _EPOCH).total_seconds()) - offset
            change = self._change(instant, found, offset)
            if change is None:
                return float(found)
            instant, offset = change - 1, self._offset(change)

    def _offset(self, instant: int) -> int:
        return int((datetime.fromtimestamp(instant, self.zone).utcoffset() or timedelta()).total_seconds())

    def _change(self, after: int, until: int, offset: int) -> int | None:
        """Return the first second after ``after``, up to ``until``, at which the zone's offset is another one."""
        while after < until:
            end = min(after + STRIDE, until)
            if self._offset(end) == offset:
                after = end
                continue
            while end - after > 1:
                middle = (after + end) // 2
                if self._offset(middle) == offset:
                    after = middle
                else:
                    end = middle
            return end
        return None


def zone_of(timezone: object) -> ZoneInfo:
    """Return a time zone by its name, or the one that is given.

    Raises:
        ConfigurationError: If there is none of that name.
    """
    if isinstance(timezone, ZoneInfo) and timezone.key is not None:
        return timezone
    if timezone is UTC:
        return ZoneInfo("UTC")
    if not isinstance(timezone, str):
        msg = f"timezone must be a name such as 'Europe/Berlin', or a ZoneInfo with a name, not {timezone!r}"
        raise ConfigurationError(msg)
    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        msg = f"there is no time zone {timezone!r}; its name must be one such as 'UTC' or 'Europe/Berlin'"
        raise ConfigurationError(msg) from None


def _library(line: str) -> NextTime:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        msg = f"cron={line!r} needs the extra 'cron': pip install 'fastapi-taskflow-otel[cron]'"
        raise ConfigurationError(msg) from None

    def next_time(fields: str, shown: datetime) -> datetime | None:
        try:
            found: datetime | None = next(CronSim(fields, shown), None)
        except CronSimError as error:
            msg = f"cron={line!r} cannot be read: {error}"
            raise ConfigurationError(msg) from None
        return found

    return next_time
