"""What the client, the faults and the store say, as the checker takes it. All times are monotonic nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """A task whose id reached the client with a whole 2xx response.

    Attributes:
        task_id: The id.
        kind: The name of its kind.
        key: The idempotency key that the client gave, or None.
        at: When the response was read.
    """

    task_id: str
    kind: str
    key: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Row:
    """A task as the store has it at the end.

    Attributes:
        task_id: The id.
        kind: The name of its kind.
        status: Its status.
        attempt: Its last attempt.
        owner_lives: Whether the instance that owns it has a process.
        ended: When it ended, or None.
        error_type: The class of its last error, or None.
    """

    task_id: str
    kind: str
    status: str
    attempt: int
    owner_lives: bool
    ended: int | None
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault, and the processes whose tasks it may have cut off.

    Attributes:
        fault: Its name.
        pids: Who was hit.
        since: Shortly before it began.
        until: When it can do no more harm.
    """

    fault: str
    pids: frozenset[int]
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Lock:
    """A time in which nobody could write to the store.

    Attributes:
        since: Its beginning.
        until: Its end.
    """

    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """A task that a killed process left in the store.

    Attributes:
        task_id: The id.
        due: When it may start again, as far as it waits on purpose; else 0.
    """

    task_id: str
    due: int


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL.

    Attributes:
        at: When.
        orphans: What the store still had as pending or running for the killed processes, just afterwards.
    """

    at: int
    orphans: tuple[Orphan, ...]
