"""What the workers of a host show for each other in a scrape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fastapi_taskflow.telemetry.series import Reading


@dataclass(frozen=True, slots=True)
class Shown:
    """What one manager shows while the workers of its host share their numbers.

    Attributes:
        key: Under which its own numbers are kept.
        own: Its own counters as they were last kept: what was shown once is never lost with the process.
        others: What is kept of the others, by key: those that live with their gauges, those that are gone without.
        read_at: When the others were read, seconds of the monotonic clock.
    """

    key: str
    own: Reading
    others: Mapping[str, Reading]
    read_at: float


def others_of(shown: Iterable[Shown]) -> Iterator[Reading]:
    """Yield what workers in other processes keep, each once.

    Managers on one store have read the same rows, one of them later than the other. Only the newest of these counts:
    in the meantime rows may have been put together.
    """
    managers = sorted(shown, key=lambda each: each.read_at, reverse=True)
    here = {each.key for each in managers}
    covered: set[str] = set()
    for each in managers:
        if each.key in covered:
            continue
        covered.update(each.others)
        yield from (reading for key, reading in each.others.items() if key not in here)
