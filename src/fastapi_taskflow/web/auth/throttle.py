"""Slows down those who guess passwords."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PER_USER_AND_ADDRESS: Final = 5
PER_ADDRESS: Final = 30
WINDOW: Final = 60.0
"""Seconds in which that many wrong logins are allowed."""
MAX_KEYS: Final = 10_000


class LoginThrottle:
    """Counts attempts per user and address, and per address, in a sliding minute. Its memory is bounded.

    An attempt counts from its beginning, so that a hundred at the same time are not all let through; one that turns
    out right is taken back.

    Args:
        monotonic: The clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._attempts: OrderedDict[tuple[str, ...], deque[float]] = OrderedDict()

    def wait(self, user: str, address: str) -> int:
        """Return 0 and count an attempt, or the seconds until the next one is allowed."""
        now = self._monotonic()
        limits = (((address, user[:256]), PER_USER_AND_ADDRESS), ((address,), PER_ADDRESS))
        for key, limit in limits:
            recent = self._recent(key, now)
            if len(recent) >= limit:
                return max(1, math.ceil(recent[0] + WINDOW - now))
        for key, _ in limits:
            self._attempts.setdefault(key, deque()).append(now)
            self._attempts.move_to_end(key)
        while len(self._attempts) > MAX_KEYS:
            self._attempts.popitem(last=False)
        return 0

    def succeeded(self, user: str, address: str) -> None:
        """Take back what the attempts of a user who knows the password counted."""
        self._attempts.pop((address, user[:256]), None)
        overall = self._attempts.get((address,))
        if overall:
            overall.pop()

    def _recent(self, key: tuple[str, ...], now: float) -> deque[float]:
        attempts = self._attempts.get(key)
        if attempts is None:
            return deque()
        while attempts and attempts[0] <= now - WINDOW:
            attempts.popleft()
        return attempts
