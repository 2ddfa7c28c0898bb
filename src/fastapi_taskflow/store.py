"""The seam to where tasks are kept. Fillings are in ``stores/``; one conformance suite proves each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastapi_taskflow.task.record import TaskRecord, TaskStatus

    OnCommit = Callable[[Sequence["Ride"], Callable[[], bool]], None]
    """Told of rides that are committed, or are about to be while the function given with them says True.

    It may be called on any thread, and must not raise.
    """

DURATION_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1800.0,
)  # fmt: skip
"""Upper bounds, in seconds, of the duration histogram that a store keeps per function."""


RELATIONS = ("trace_id", "parent_id", "group_id", "schedule", "retry_of")
"""Filters of a `TaskQuery` and columns of the same name, each with an index that finds the few rows that match."""

OWNERLESS_GRACE = 2.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Change:
    """One record on its way into the store.

    Attributes:
        record: The newest version.
        committed: What the store holds according to the writer, None for a task that is new. The store takes ``record``
            only if its own row has this owner, and no newer version than ``record``.
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
        parent_id: Follows or belongs to this task.
        group_id: Is a member of this group.
        schedule: Was added by this schedule, or with a trailing ``*`` by one whose name begins so.
        retry_of: Retries this task.
        dead: Failed or interrupted, and waits for a decision.
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
    parent_id: str | None = None
    group_id: str | None = None
    schedule: str | None = None
    retry_of: str | None = None
    dead: bool = False
    since: float | None = None
    until: float | None = None
    oldest_first: bool = False
    cursor: str | None = None
    limit: int = 50

    @property
    def relations(self) -> Mapping[str, str]:
        """The filters by columns that few tasks share, by name."""
        return {name: value for name in RELATIONS if (value := getattr(self, name)) is not None}

    @property
    def only_counted(self) -> bool:
        """Whether counters per function and status know how many match."""
        rest = (self.queue, self.tag, self.text, self.since, self.until)
        return not (self.dead or self.relations) and all(value is None for value in rest)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tasks of a kind, such as dead letters; the fields are those of `TaskQuery`."""

    func_name: str | None = None
    queue: str | None = None
    tag: str | None = None
    text: str | None = None
    since: float | None = None
    until: float | None = None


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
        heartbeat_at: The last sign of life, seconds since the Unix epoch by the store's clock: a database server's own,
            where there is one.
        age: Seconds since that sign by the same clock, when it was read.
    """

    instance_id: str
    host: str
    pid: int
    pid_started: int
    started_at: float
    heartbeat_at: float
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Act:
    """Something that a person or a program did to tasks, queues or schedules.

    Attributes:
        act_id: A UUID of version 7: later acts sort after earlier ones.
        at: Seconds since the Unix epoch.
        actor: The user's name; empty where nobody has to sign in.
        action: What was done, such as ``task.cancel`` or ``queue.pause``.
        target: The task's id, or the name of the queue or schedule.
        detail: JSON text with what else there is to know, or None.
        address: Where the request came from, or None.
    """

    act_id: str
    at: float
    actor: str
    action: str
    target: str
    detail: str | None = None
    address: str | None = None


class Store(Protocol):
    """Where tasks are kept. Every method but ``open`` may be called from the loop that opened it only.

    Any method may raise `StoreError`; then nothing of the call was kept, unless it is a `StoreUnavailableError` that
    says ``uncertain``. A change may be written again in any case: what the store has of it already counts once.
    """

    @property
    def persistent(self) -> bool:
        """Whether what it holds outlives the process."""

    @property
    def company_warning(self) -> str | None:
        """What speaks against several instances on it, or None."""

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
        """Write the instance's row, new or not, with the store's time as its sign of life."""

    async def instances(self) -> Sequence[Instance]:
        """Return all instances that have a row."""

    async def forget(self, instance_id: str, *, beat: float | None = None) -> None:
        """Delete the instance's row, if its last sign of life still is ``beat``. Its tasks keep their owner.

        Args:
            instance_id: Whose row.
            beat: The ``heartbeat_at`` by which it counts as dead; None deletes the row whatever it says.
        """

    async def claim(self, owner: str, dead: Mapping[str, float], *, limit: int) -> Sequence[TaskRecord]:
        """Make ``owner`` the owner of pending and running tasks of nobody who lives, in one step; oldest first.

        Two instances that claim at once never get the same task. One without an owner that was created less than
        `OWNERLESS_GRACE` ago is left to the instance that has just added it. Tasks whose owner has no row are taken.

        Args:
            owner: Who claims. Its own tasks are left alone.
            dead: Instances that count as dead, each with the ``heartbeat_at`` it was judged by. One that has beaten
                since is not dead after all, and its tasks are left alone.
            limit: Records at most.

        Returns:
            The whole records as they are now stored: status unchanged, ``version`` one higher, owned by ``owner``.
        """

    async def take(self, task_id: str, *, of: str, owner: str) -> TaskRecord | None:
        """Make ``owner`` the owner of one pending task in place of ``of``, whether or not that one lives.

        From then on nothing that ``of`` writes of it is kept, not even that it has started.

        Returns:
            The whole record as it is now stored, ``version`` one higher; None if it is not pending, or not that one's.
        """

    async def owned(self, owner: str) -> frozenset[str]:
        """Return the ids of an instance's pending and running tasks. For rare use: the cost grows with their number."""

    async def changes(self, since: float, *, limit: int) -> Sequence[TaskRecord]:
        """Return records that are live, or were added or ended at ``since`` or later; heavy fields may be left out.

        At most ``limit`` of each of the three, the newest first of those added or ended.
        """

    async def ask_to_cancel(self, task_id: str) -> None:
        """Leave a request for the owner of a task, whoever it is when it looks. Harmless when there is one already."""

    async def asked_to_cancel(self, owner: str) -> Sequence[str]:
        """Take the requests for the tasks of ``owner``; return the tasks' ids. Those for ended tasks are dropped."""

    async def signalled(self, within: float) -> bool:
        """Wait until another instance may have left something for this one; at most ``within`` seconds.

        Returns:
            Whether there was a signal. A store without signals waits and returns False.
        """

    async def save_numbers(self, instance_id: str, host: str, numbers: str) -> None:
        """Keep an instance's metrics for the other workers of its host, in place of its earlier ones."""

    async def numbers(self, host: str) -> Mapping[str, str]:
        """Return the kept metrics of a host, by instance id."""

    async def merge_numbers(
        self, host: str, gone: Sequence[str], into: str, merge: Callable[[Sequence[str]], str]
    ) -> None:
        """Put the metrics of instances that are gone together, in one step that no other worker can do as well.

        Args:
            host: Whose.
            gone: Instance ids.
            into: The key under which the sum is kept from now on; its old value is part of the sum.
            merge: Makes one text of several.
        """

    async def forget_numbers(self, age: float) -> None:
        """Delete the metrics of hosts that have no instance, and saved none for ``age`` seconds."""

    async def rewrite(self, record: TaskRecord) -> bool:
        """Replace the texts of a stored task: arguments, result, lines and follow-ups. Nothing else of it changes.

        Returns:
            Whether the row still had this version, and so was replaced. A store that keeps no texts says no.
        """

    async def get_meta(self, key: str) -> str | None:
        """Return a small setting shared by all instances, or None."""

    async def put_meta(self, key: str, value: str, *, expires_at: float | None = None) -> str:
        """Keep a small setting if the key is free or expired; return the value that the store now holds."""

    async def set_meta(self, key: str, value: str) -> None:
        """Keep a small setting in place of an earlier one, without an end."""

    async def drop_meta(self, key: str) -> bool:
        """Delete a small setting; return whether there was one."""

    async def metas(self, prefix: str) -> Mapping[str, str]:
        """Return the small settings whose key begins with ``prefix``, in the order of their keys."""

    async def add_act(self, act: Act) -> None:
        """Add to the audit log. An act with an id that is there already is left out."""

    async def acts(self, *, target: str | None = None, before: str | None = None, limit: int = 50) -> Sequence[Act]:
        """Return the audit log, newest first.

        Args:
            target: Only acts on this.
            before: Only acts before this one's id, for the next page.
            limit: At most so many.
        """

    async def prune_acts(self, *, before: float, limit: int) -> int:
        """Delete at most ``limit`` acts that were done before; return how many."""


class Ride(Protocol):
    """A new task on its way through a transaction of the user's.

    Attributes:
        record: As it is stored. The time of its creation is set to that of the commit.
    """

    record: TaskRecord


class Carrier(Protocol):
    """A session or connection of the user's, which puts new tasks into its current transaction.

    A task whose transaction or savepoint is rolled back is forgotten.
    """

    async def insert(self, ride: Ride) -> bool:
        """Insert the task's row now; return False if its key is taken, and then forget it."""

    def insert_at_commit(self, ride: Ride) -> None:
        """Have the task's row inserted just before the commit; if its key is taken then, it is forgotten. No I/O.

        Raises:
            ConfigurationError: If this carrier cannot do that.
        """


@runtime_checkable
class CarryingStore(Protocol):
    """A store in a database that the user's own transactions may reach."""

    def carrier(self, session: object, on_commit: OnCommit) -> Carrier:
        """Return what puts tasks into the transaction of ``session``.

        Raises:
            ConfigurationError: If ``session`` is not of a known type, or not in the same database.
        """
