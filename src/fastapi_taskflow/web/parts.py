"""What the admin application needs from the rest of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol

from fastapi import Depends, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Literal

    from fastapi_taskflow.store import FunctionStats, Page, Selection, Store, TaskQuery
    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.once import ScheduledOnce
    from fastapi_taskflow.task.queue import QueueFacts
    from fastapi_taskflow.task.record import TaskRecord, TaskStatus
    from fastapi_taskflow.task.schedule import ScheduleView
    from fastapi_taskflow.web.auth.backend import TaskAuthBackend
    from fastapi_taskflow.web.stream import ChangeFeed


class Journal(Protocol):
    """Where records are read."""

    @property
    def backlog(self) -> int:
        """Changes that are not committed yet."""

    @property
    def full(self) -> bool:
        """Whether so many changes wait that nothing new is taken in."""

    @property
    def failure(self) -> str | None:
        """Why the last write failed, or None if it did not."""

    @property
    def writing_for(self) -> float:
        """Seconds for which the batch under way has been waiting for the store; 0 if there is none."""

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return the newest record, or None."""

    async def list(self, query: TaskQuery) -> Page:
        """Return one page."""

    async def stats(self) -> Mapping[str, FunctionStats]:
        """Return the counters per function name."""

    def live_counts(self) -> Mapping[tuple[str, TaskStatus], int]:
        """Return how many tasks wait and run in this process, by queue and status."""


class Dispatcher(Protocol):
    """Where an operator's wishes go."""

    @property
    def owner(self) -> str:
        """The id of this instance, new with each start."""

    async def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task; return its record as it is then."""

    async def retry(self, task_id: str) -> TaskRecord:
        """Run an unsuccessful task again; return the new task's record."""

    async def discard(self, task_id: str) -> TaskRecord:
        """Take a task off the dead letters; return its record."""


class Bulk(Protocol):
    """Where wishes for many tasks go."""

    async def begin(self, verb: Literal["retry", "discard"], selection: Selection) -> TaskRecord:
        """Begin a job on all dead letters that match; return the job's own task."""


class Queues(Protocol):
    """Where an operator's wishes for queues go. All of them hold for every instance on the store."""

    def facts(self) -> Mapping[str, QueueFacts]:
        """Return what is known of each queue here, in the order of their names."""

    async def change(self, name: str, values: Mapping[str, int | str | None]) -> None:
        """Set some limits of a queue, by their names; None is without limit."""

    async def pause(self, name: str) -> None:
        """Let nothing more of a queue start."""

    async def resume(self, name: str) -> None:
        """Let a paused queue go on."""

    async def reset(self, name: str) -> None:
        """Forget what was changed of a queue."""


class Registry(Protocol):
    """The known functions."""

    def __iter__(self) -> Iterator[TaskDefinition]:
        """Iterate over all definitions."""

    def get(self, name: str) -> TaskDefinition | None:
        """Return the definition with this name, or None."""


class Scheduler(Protocol):
    """What runs by the clock."""

    async def views(self) -> Sequence[ScheduleView]:
        """Return all schedules as they are now."""

    async def run(self, name: str) -> TaskRecord:
        """Run a schedule's function now; return the new task's record."""

    async def pause(self, name: str) -> ScheduleView:
        """Let a schedule's slots pass by."""

    async def resume(self, name: str) -> ScheduleView:
        """Have a schedule's slots run again."""


class OneOffs(Protocol):
    """What runs once."""

    async def waiting(self) -> Sequence[ScheduledOnce]:
        """Return all tasks that wait for their time, the first due first."""


class PrometheusRenderer(Protocol):
    """Makes the text that a scraper reads."""

    async def scrape(
        self,
        accept: str | None,
        format: str | None,  # noqa: A002 - named as in the URL
    ) -> tuple[str, bytes]:
        """Return the content type and the body, by the ``Accept`` header or by the format asked for outright.

        The text is rendered off the loop: a large registry takes tens of milliseconds.
        """


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """The options of the admin application.

    Attributes:
        path: Where it is mounted, such as ``/tasks``.
        title: The name in the page header.
        display_func_args: Whether arguments are shown at all.
        poll_interval: Seconds between keep-alives of the stream, and between the page's own refreshes.
        auth: Who may log in; None leaves everything open.
        token_expiry: Seconds that a session lasts.
        secret_key: Signs the sessions; None makes a random one, shared through the store.
        metrics_token: Bearer token with which a scraper reads ``/metrics`` and ``/health``.
        trace_url: Link to a trace backend with ``{trace_id}`` in it, or None.
    """

    path: str = "/tasks"
    title: str = "fastapi-taskflow"
    display_func_args: bool = False
    poll_interval: float = 30.0
    auth: TaskAuthBackend | None = None
    token_expiry: float = 86_400.0
    secret_key: str | None = None
    metrics_token: str | None = None
    trace_url: str | None = None


@dataclass(frozen=True, slots=True)
class AdminParts:
    """Everything that the routes work with.

    Attributes:
        settings: The options.
        journal: Reads records.
        dispatcher: Cancels, retries and discards.
        bulk: Does so with many.
        queues: Limits and pauses queues.
        registry: Known functions.
        scheduler: Shows, pauses and resumes schedules.
        one_offs: Lists what runs once.
        store: Holds what sessions share between workers.
        prometheus: Renders the scraper's text.
        feed: Fans changes out to the open pages.
    """

    settings: AdminSettings
    journal: Journal
    dispatcher: Dispatcher
    bulk: Bulk
    queues: Queues
    registry: Registry
    scheduler: Scheduler
    one_offs: OneOffs
    store: Store
    prometheus: PrometheusRenderer
    feed: ChangeFeed


async def _parts_of(request: Request) -> AdminParts:
    parts: AdminParts = request.app.state.parts
    return parts


Parts = Annotated[AdminParts, Depends(_parts_of)]
"""Annotation by which a route gets the parts."""
