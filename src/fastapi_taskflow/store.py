"""The seam to where tasks are kept. Fillings are in ``stores/``; one conformance suite proves each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi_taskflow.task.record import TaskRecord, TaskStatus

DURATION_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1800.0,
)  # fmt: skip
"""Upper bounds, in seconds, of the duration histogram that a store keeps per function."""


@dataclass(frozen=True, slots=True)
class Change:
    """One record on its way into the store.

    Attributes:
        record: The newest version.
        committed: The version that the store holds according to the writer, None for a task that is new. The store
            takes ``record`` only if its own row still is this version and has this owner.
    """

    record: TaskRecord
    committed: TaskRecord | None = None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What came of a batch that was committed.

    Attributes:
        duplicates: Ids of new tasks that were there already: another request was first with the same key.
        stale: Ids of changes refused because the row has a newer version or another owner: the lease was lost.
    """

    duplicates: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """Which records to list, newest first unless ``oldest_first``.

    Attributes:
        statuses: Any of these, all if empty.
        func_name: Exactly this, or with a trailing ``*`` a prefix.
        queue: Exactly this.
        tag: Has this tag.
        text: A piece of text in the id, the function's name, the error or a tag; case-insensitive.
        trace_id: 32 hex digits.
        since: ``created_at`` at or after, seconds since the Unix epoch.
        until: ``created_at`` before, seconds since the Unix epoch.
        oldest_first: The other order.
        cursor: Where the last page ended, from `Page.next_cursor`.
        limit: Records a page, at least 1.
    """

    statuses: frozenset[TaskStatus] = frozenset()
    func_name: str | None = None
    queue: str | None = None
    tag: str | None = None
    text: str | None = None
    trace_id: str | None = None
    since: float | None = None
    until: float | None = None
    oldest_first: bool = False
    cursor: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing.

    Attributes:
        records: In order. Heavy fields (payload, spans, result) may be left out; ``get`` has them.
        next_cursor: Give it to the next query; None at the end.
        total: How many records match, where counters know it without counting; else None.
    """

    records: tuple[TaskRecord, ...]
    next_cursor: str | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """Counters of one function's stored tasks.

    Attributes:
        counts: Tasks per status.
        duration_count: Successful and failed tasks with a duration.
        duration_sum: Their seconds in total.
        buckets: Per bound of `DURATION_BOUNDS`, plus one for the rest: how many took that long (not cumulative).
    """

    counts: Mapping[TaskStatus, int] = field(default_factory=dict)
    duration_count: int = 0
    duration_sum: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS) + 1)


@dataclass(frozen=True, slots=True)
class Instance:
    """One running process that works on the store.

    Attributes:
        instance_id: A new UUID for each start.
        host: The machine's name.
        pid: The process id there.
        pid_started: When that process started, in clock ticks since boot; 0 where it cannot be told. With ``pid``
            it names a process even when the pid is used again.
        started_at: Seconds since the Unix epoch.
        heartbeat_at: The last sign of life, seconds since the Unix epoch.
    """

    instance_id: str
    host: str
    pid: int
    pid_started: int
    started_at: float
    heartbeat_at: float


class Store(Protocol):
    """Where tasks are kept. Every method but ``open`` may be called from the loop that opened it only.

    Any method may raise `StoreError`; then nothing of the call was kept.
    """

    @property
    def persistent(self) -> bool:
        """Whether what it holds outlives the process."""

    @property
    def generation(self) -> int:
        """A number that changes when the store holds something else than before, such as a file that was replaced.

        What was committed may then be missing. `write` fails once, and whoever writes can look it up.
        """

    async def open(self) -> None:
        """Connect and bring the schema up to date.

        Raises:
            SchemaVersionError: If the schema is newer than this code.
        """

    async def close(self) -> None:
        """Disconnect. Harmless when not open."""

    async def write(self, changes: Sequence[Change]) -> WriteResult:
        """Commit all changes in one transaction, counters included. One call at a time."""

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return the whole record, or None."""

    async def list(self, query: TaskQuery) -> Page:
        """Return one page.

        Raises:
            ValueError: If the cursor is not one that this store gave.
        """

    async def stats(self) -> Mapping[str, FunctionStats]:
        """Return the counters per function name, at a cost that does not grow with the history."""

    async def prune(self, *, before: float, limit: int) -> int:
        """Delete at most ``limit`` success, failed, cancelled and rejected records that ended before; return how many.

        Pending, running and interrupted ones stay, whatever their age.
        """

    async def beat(self, instance: Instance) -> None:
        """Write the instance's row, new or not."""

    async def instances(self) -> Sequence[Instance]:
        """Return all instances that have a row."""

    async def forget(self, instance_id: str) -> None:
        """Delete the instance's row. Its tasks keep their owner."""

    async def orphans(self, live: frozenset[str], *, limit: int) -> Sequence[TaskRecord]:
        """Return at most ``limit`` whole pending or running records whose owner is none of ``live``, oldest first."""

    async def get_meta(self, key: str) -> str | None:
        """Return a small setting shared by all instances, or None."""

    async def put_meta(self, key: str, value: str, *, expires_at: float | None = None) -> str:
        """Keep a small setting if the key is free or expired; return the value that the store now holds."""
