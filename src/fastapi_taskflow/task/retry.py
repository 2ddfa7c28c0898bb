"""When a failed attempt is followed by another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PAUSE: Final = 10.0 * 365 * 86_400
"""Seconds; no pause is longer, whatever the factors come to."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Whether and when a failed attempt is followed by another one.

    Attributes:
        retries: Further attempts after the first one.
        delay: Seconds before the first retry.
        backoff: Factor on the delay for each further retry.
        max_delay: Seconds that no delay exceeds, or None.
        jitter: The part of the delay that is left to chance, 0 to 1: each is between ``delay * (1 - jitter)`` and
            ``delay``. With 1 it is the "full jitter" of
            https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
        retry_on: Only these exceptions are followed by another attempt; empty for all.
        give_up_on: These are not, whatever ``retry_on`` says.
    """

    retries: int = 0
    delay: float = 0.0
    backoff: float = 1.0
    max_delay: float | None = None
    jitter: float = 0.0
    retry_on: tuple[type[BaseException], ...] = ()
    give_up_on: tuple[type[BaseException], ...] = ()

    def allows(self, error: BaseException) -> bool:
        """Tell whether ``error`` may be followed by another attempt."""
        if isinstance(error, self.give_up_on):
            return False
        return not self.retry_on or isinstance(error, self.retry_on)

    def pause_before(self, retry: int, *, chance: Callable[[], float]) -> float:
        """Return the seconds to wait before a retry.

        Args:
            retry: Its number, from 1.
            chance: Returns a random number, from 0 up to but not including 1.
        """
        try:
            pause = self.delay * self.backoff ** (retry - 1)
        except OverflowError:
            pause = MAX_PAUSE
        pause = min(pause, MAX_PAUSE if self.max_delay is None else self.max_delay)
        return pause * (1.0 - self.jitter * chance()) if self.jitter else pause


NO_RETRY: Final = RetryPolicy()
