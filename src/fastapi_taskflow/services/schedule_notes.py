"""What the store keeps of schedules: how far each has come, who brought it there, and which are paused."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi_taskflow.store import Store
    from fastapi_taskflow.task.schedule import Schedule

logger = logging.getLogger("fastapi_taskflow.schedules")

PREFIX: Final = "schedule:"
_PLACE: Final = f"{PREFIX}place:"
_PAUSED: Final = f"{PREFIX}paused:"
_STARTED: Final = f"{PREFIX}started:"


@dataclass(frozen=True, slots=True)
class Place:
    """How far a schedule has come.

    Attributes:
        slot: The last slot that was dealt with, or when the schedule was first seen.
        times: What the schedule said then.
        owner: The instance that dealt with it.
        ran: Whether a slot was dealt with at all.
    """

    slot: float
    times: str
    owner: str
    ran: bool = True


class ScheduleNotes:
    """Reads and writes them. Each fact is a setting of its own, so that no two writers undo each other's.

    Args:
        store: Where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self) -> Notes:
        """Read all of them."""
        return Notes(await self._store.metas(PREFIX))

    async def see_first(self, schedule: Schedule, place: Place) -> Place:
        """Note where a schedule begins, unless somebody has just noted it; return what holds."""
        return _place(schedule, await self._store.put_meta(_PLACE + schedule.name, _text(place))) or place

    async def move(self, schedule: Schedule, place: Place) -> None:
        """Note how far a schedule has come."""
        await self._store.set_meta(_PLACE + schedule.name, _text(place))

    async def pause(self, schedule: Schedule) -> None:
        """Let its slots pass by, in all instances."""
        await self._store.put_meta(_PAUSED + schedule.name, clock.to_iso(clock.now()))

    async def resume(self, schedule: Schedule) -> None:
        """Have its slots run again."""
        await self._store.drop_meta(_PAUSED + schedule.name)

    async def started(self, schedule: Schedule, owner: str) -> None:
        """Note who ran the schedule at its start."""
        await self._store.set_meta(_STARTED + schedule.name, owner)


class Notes:
    """What was read."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings

    def place(self, schedule: Schedule) -> Place | None:
        """Return how far a schedule has come; None if it is new, or comes at other times than before."""
        found = self.last(schedule)
        return found if found is not None and found.times == str(schedule.times) else None

    def last(self, schedule: Schedule) -> Place | None:
        """Return how far a schedule has come, whatever its times were then; None if it is new."""
        text = self._settings.get(_PLACE + schedule.name)
        return None if text is None else _place(schedule, text)

    def is_paused(self, schedule: Schedule) -> bool:
        """Tell whether its slots pass by."""
        return _PAUSED + schedule.name in self._settings

    def started_by(self, schedule: Schedule) -> str:
        """Return the instance that ran it at a start, or an empty text."""
        return self._settings.get(_STARTED + schedule.name, "")


def _place(schedule: Schedule, text: str) -> Place | None:
    try:
        return Place(**json.loads(text))
    except (ValueError, TypeError):
        logger.warning("what the store has of schedule %s cannot be read; it begins anew", schedule.name)
        return None


def _text(place: Place) -> str:
    facts = {"slot": place.slot, "times": place.times, "owner": place.owner, "ran": place.ran}
    return json.dumps(facts, separators=(",", ":"))
