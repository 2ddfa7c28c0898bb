"""A queue's limits, how they are written, and what is known of a queue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.arguments import checked_queue

DEFAULT: Final = "default"
MOST: Final = 1_000_000
"""The largest limit: beyond it a typing error is more likely than a need."""

RATE: Final = r"[1-9][0-9]{0,5}/[smhd]"
SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``count`` starts within any ``seconds``."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """The limits of one queue in each process; None is without limit.

    Attributes:
        concurrency: Tasks that run at the same time.
        max_size: Tasks that may wait; what comes beyond that gets `QueueFullError`.
        rate_limit: Attempts that start within a time, as ``"10/s"``, ``"100/m"``, ``"1000/h"`` or ``"5000/d"``: never
            more in any second, minute, hour or day.

    Raises:
        ConfigurationError: If a value is wrong.
    """

    concurrency: int | None = None
    max_size: int | None = None
    rate_limit: str | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("concurrency", "max_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST):
                msg = f"{name} must be a whole number from 1 to {MOST}, or None for no limit, not {value!r}"
                raise ConfigurationError(msg)
        rate: object = self.rate_limit
        if rate is not None and not (isinstance(rate, str) and re.fullmatch(RATE, rate)):
            msg = (
                f"rate_limit must be such as '10/s', '100/m', '1000/h' or '5000/d', or None for no limit, not {rate!r}"
            )
            raise ConfigurationError(msg)

    @property
    def rate(self) -> RateLimit | None:
        """``rate_limit`` in numbers."""
        if self.rate_limit is None:
            return None
        count, _, unit = self.rate_limit.partition("/")
        return RateLimit(int(count), SECONDS[unit])


NO_LIMITS: Final = QueueConfig()


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """One queue as it is in this process.

    Attributes:
        name: Its name.
        config: Its limits now.
        paused: Whether nothing starts.
        waiting: Tasks that could run and wait; ``max_size`` bounds these.
        declared: Whether the code gives it limits.
        stored: What an operator changed, by the name of the limit, or ``paused``.
    """

    name: str
    config: QueueConfig
    paused: bool
    waiting: int
    declared: bool
    stored: Mapping[str, Any]


def checked_queues(queues: object) -> dict[str, QueueConfig]:
    """Return the declared queues.

    Raises:
        ConfigurationError: If it is no mapping of names to `QueueConfig`.
    """
    if queues is None:
        return {}
    if not isinstance(queues, Mapping):
        msg = f"queues must be a mapping such as {{'email': QueueConfig(concurrency=30)}}, not {queues!r}"
        raise ConfigurationError(msg)
    for name, config in queues.items():
        checked_queue(name)
        if not isinstance(config, QueueConfig):
            msg = f"queues[{name!r}] must be a QueueConfig, not {config!r}"
            raise ConfigurationError(msg)
    return dict(queues)
