"""The settings of one manager: frozen, and checked when they are made."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fastapi_taskflow.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Settings:
    """What a manager was told.

    Attributes:
        requeue_pending: Whether tasks that had not started run after a restart. Otherwise they become ``interrupted``.
        retention_days: Days after which finished records are deleted; None keeps them.
        audit_retention_days: Days after which acts are deleted from the audit log.
        max_sync_threads: Sync tasks at the same time, each in a thread.
        max_process_workers: Tasks in processes of their own at the same time.
        process_max_tasks: Tasks after which such a process is replaced.
        max_concurrent_tasks: Tasks at the same time, sync and async together; None is without limit.
        commit_timeout: Seconds that a request waits for its tasks to be stored before it fails with 503.
        shutdown_timeout: Seconds that running tasks have to finish at shutdown.
        lease: Seconds after the last heartbeat at which an instance counts as dead.
        max_recoveries: How often a task may be cut off by the end of its process before it is parked as failed.
        result_max_bytes: Length of the longest result that is kept; 0 keeps none.
        max_backlog: Changes that may wait for the store; beyond that new tasks are refused.
    """

    requeue_pending: bool = False
    retention_days: float | None = None
    audit_retention_days: float = 365.0
    max_sync_threads: int = 40
    max_process_workers: int = min(4, os.cpu_count() or 1)
    process_max_tasks: int = 100
    max_concurrent_tasks: int | None = None
    commit_timeout: float = 5.0
    shutdown_timeout: float = 30.0
    lease: float = 15.0
    max_recoveries: int = 3
    result_max_bytes: int = 65_536
    max_backlog: int = 100_000

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigurationError: If one is out of range.
        """
        for name in (
            "commit_timeout",
            "audit_retention_days",
            "lease",
            "max_sync_threads",
            "max_process_workers",
            "process_max_tasks",
            "max_backlog",
        ):
            require_positive(name, getattr(self, name))
        for name in ("retention_days", "max_concurrent_tasks"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        for name in ("shutdown_timeout", "max_recoveries", "result_max_bytes"):
            require_number(name, getattr(self, name))
            if getattr(self, name) < 0:
                msg = f"{name} must not be negative, not {getattr(self, name)!r}"
                raise ConfigurationError(msg)


def require_number(name: str, value: object) -> None:
    """Refuse what is not a number.

    Raises:
        ConfigurationError: If ``value`` is not an int or float.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{name} must be a number, not {value!r}"
        raise ConfigurationError(msg)


def require_positive(name: str, value: object) -> None:
    """Refuse what is not a number above zero.

    Raises:
        ConfigurationError: If ``value`` is not an int or float, or not above zero.
    """
    require_number(name, value)
    if not value > 0:  # type: ignore[operator]
        msg = f"{name} must be above zero, not {value!r}"
        raise ConfigurationError(msg)
