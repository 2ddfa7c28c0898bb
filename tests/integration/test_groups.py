"""Groups with a callback: it runs once, when all members have succeeded, wherever they run."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastapi_taskflow import (
    ConfigurationError,
    ManagedBackgroundTasks,
    QueueConfig,
    QueueFullError,
    TaskAdmin,
    TaskGroup,
    TaskManager,
    chain,
    previous_result,
    step,
)
from fastapi_taskflow.services import groups
from fastapi_taskflow.store import TaskQuery
from tests.integration.conftest import eventually, serving
from tests.integration.test_composition import broken, double, gate, hold, note, nothing_ran, options, ran, started

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi_taskflow.task.record import TaskRecord

__all__ = ["nothing_ran", "options"]


async def both_ended(manager: TaskManager, group: TaskGroup) -> None:
    """Wait until no member of a group waits or runs."""
    for task_id in group.task_ids:
        await manager.wait(task_id)


async def children(manager: TaskManager, task_id: str) -> list[TaskRecord]:
    """Return what follows a task."""
    return list((await manager.journal.list(TaskQuery(parent_id=task_id))).records)


async def status(manager: TaskManager, task_id: str) -> tuple[str, str | None]:
    """Return a task's status and its error or reason."""
    record = await manager.journal.get(task_id)
    assert record is not None
    return record.status.value, record.error


async def test_the_callback_gets_all_results_in_order(options: dict[str, Any]) -> None:
    """Members run side by side in whatever order; the callback runs once after all, and can be waited for."""
    app = FastAPI()
    manager = TaskManager(**options)
    TaskAdmin(app, manager, auto_install=True)

    @app.post("/go")
    async def go(tasks: ManagedBackgroundTasks) -> dict[str, Any]:
        members = [step(hold), *[step(double, number) for number in range(1, 4)]]
        made = tasks.add_group(members, callback=step(note, "sum", more=previous_result, tags=["cb"]))
        return {"group_id": made.group_id, "task_ids": made.task_ids}

    async with serving(app) as client:
        made = (await client.post("/go")).json()
        for task_id in made["task_ids"][1:]:
            await manager.wait(task_id)
        assert (await status(manager, made["group_id"]))[0] == "pending"
        gate[0].set()
        callback = await manager.wait(made["group_id"])
        assert ran == ["held", 1, 2, 3, ("sum", [1, 2, 4, 6])]
        assert (callback.status, callback.source, callback.tags) == ("success", "follow", ("cb",))
        listed = (await client.get("/tasks", params={"group_id": made["group_id"]})).json()
        assert {each["task_id"] for each in listed} == {made["group_id"], *made["task_ids"]}
        page = await client.get(f"/tasks/dashboard/{made['task_ids'][0]}", headers={"accept": "text/html"})
        assert f"group_id={made['group_id']}" in page.text


async def test_a_failed_member_is_told_once_and_can_be_made_good(options: dict[str, Any]) -> None:
    """The callback waits for the decision; when the member's retry succeeds, it runs with that one's result."""
    broken.add(2)
    async with started(**options) as manager:
        group = await manager.enqueue_group(
            [step(double, 1), step(double, 2)],
            callback=step(note, "sum", more=previous_result),
            on_failure=step(note, "alarm"),
        )
        await both_ended(manager, group)
        (alarm,) = await eventually(lambda: children(manager, group.group_id), bool)
        await manager.wait(alarm.task_id)
        first = await manager.dispatcher.retry(group.task_ids[1])
        await manager.wait(first.task_id)
        assert (await status(manager, group.group_id))[0] == "pending"
        broken.clear()
        again = await manager.dispatcher.retry(first.task_id)
        assert again.group_id == group.group_id
        assert (await manager.wait(group.group_id)).status == "success"
        assert ran == [1, 2, "alarm", 2, 2, ("sum", [2, 4])]
        assert len(await children(manager, group.group_id)) == 1


async def test_a_discarded_or_cancelled_member_ends_the_group(options: dict[str, Any]) -> None:
    """The callback is cancelled with the reason; a group whose callback is cancelled stops its members."""
    broken.add(2)
    async with started(**options) as manager:
        group = await manager.enqueue_group([step(double, 1), step(double, 2)], callback=step(note, "never"))
        await both_ended(manager, group)
        await manager.dispatcher.discard(group.task_ids[1])
        ended = await manager.wait(group.group_id)
        assert ended.status == "cancelled"
        assert "was discarded" in str(ended.error)
        second = await manager.enqueue_group([step(hold), step(note, "later", delay=3600)], callback=step(note, "no"))
        await eventually(lambda: asyncio.sleep(0, ran), lambda seen: "held" in seen)
        await manager.dispatcher.cancel(second.group_id)
        for task_id in second.task_ids:
            assert (await manager.wait(task_id)).status == "cancelled"
        third = await manager.enqueue_group([step(note, "a", delay=3600), step(note, "b")], callback=step(note, "no"))
        await manager.dispatcher.cancel(third.task_ids[0])
        ended = await manager.wait(third.group_id)
        assert "was cancelled" in str(ended.error)
        assert ran == [1, 2, "held", "b"]


async def test_members_that_run_elsewhere_are_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry in another instance completes the group; the callback runs once, in the instance that holds it."""
    monkeypatch.setattr(groups, "LOOK_MOST", 0.3)
    broken.add(2)
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(started(snapshot_backend=url))
        group = await one.enqueue_group([step(double, 1), step(double, 2)], callback=step(note, previous_result))
        await both_ended(one, group)
        broken.clear()
        two = await stack.enter_async_context(started(snapshot_backend=url))
        await two.wait((await two.dispatcher.retry(group.task_ids[1])).task_id)
        assert (await two.wait(group.group_id, timeout=10)).owner == one.dispatcher.owner
        assert ran == [1, 2, 2, [2, 4]]


async def test_a_group_goes_on_after_a_restart(url: str) -> None:
    """What waits for its group waits in the store, also without ``requeue_pending``."""
    async with started(snapshot_backend=url) as manager:
        group = await manager.enqueue_group(
            [step(double, 1), step(double, 2, delay=0.3)], callback=step(note, previous_result)
        )
        await manager.wait(group.task_ids[0])
    async with started(snapshot_backend=url) as manager:
        assert (await manager.wait(group.group_id, timeout=10)).status == "success"
    assert ran == [1, 2, [2, 4]]


async def test_a_group_is_one_trace(tmp_path: Path) -> None:
    """Members and callback are below the span that added them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with started(snapshot_db=tmp_path / "tasks.db", tracer_provider=provider) as manager:
        with provider.get_tracer("host").start_as_current_span("POST /go"):
            group = await manager.enqueue_group([step(double, 1), step(double, 2)], callback=step(note, "end"))
        await manager.wait(group.group_id)
    spans = {span.context.span_id: span for span in exporter.get_finished_spans() if span.context is not None}
    tree = sorted((span.name, spans[span.parent.span_id].name) for span in spans.values() if span.parent is not None)
    assert tree == [
        *[("process double", "send double")] * 2, ("process note", "send note"), *[("send double", "POST /go")] * 2,
        ("send note", "POST /go"),
    ]  # fmt: skip


async def test_a_result_that_was_not_kept_fails_the_callback(tmp_path: Path) -> None:
    """It says why; what follows its own failure is added."""
    async with started(snapshot_db=tmp_path / "tasks.db", result_max_bytes=0) as manager:
        group = await manager.enqueue_group(
            [step(double, 1)], callback=step(note, previous_result, on_failure=step(note, "alarm"))
        )
        assert (await manager.wait(group.group_id)).status == "failed"
        assert "result_max_bytes=0" in str((await status(manager, group.group_id))[1])
        (alarm,) = await children(manager, group.group_id)
        await manager.wait(alarm.task_id)
        assert ran == [1, "alarm"]


@pytest.mark.parametrize(
    ("steps", "more", "why"),
    [
        ([], {}, "at least one step"),
        (step(note, 1), {}, "takes a list of steps"),
        ([note], {}, "takes steps"),
        ([step(note, 1)], {"callback": note}, "callback takes a step"),
        ([step(note, 1)], {"on_failure": step(note, 2)}, "needs a callback"),
        ([chain(step(note, 1), step(note, 2))], {}, "the group would not wait"),
        ([step(note, previous_result)], {}, "nothing goes before it"),
    ],
)
async def test_a_wrong_group_is_refused(steps: Any, more: dict[str, Any], why: str) -> None:
    """The error says what is wrong, and nothing is added."""
    async with started() as manager:
        with pytest.raises(ConfigurationError, match=why):
            await manager.enqueue_group(steps, **more)
        assert (await manager.journal.list(TaskQuery())).records == ()


async def test_a_group_without_a_callback_and_in_a_queue_with_limits(options: dict[str, Any]) -> None:
    """Members share an id and take their turns in their queue."""
    async with started(queues={"one": QueueConfig(concurrency=1)}, **options) as manager:
        group = await manager.enqueue_group([step(double, number, queue="one") for number in range(5)])
        await both_ended(manager, group)
        assert ran == list(range(5))
        page = await manager.journal.list(TaskQuery(group_id=group.group_id))
        assert len(page.records) == 5


async def test_a_callback_that_failed_can_be_retried(options: dict[str, Any]) -> None:
    """It gets the results again, and what follows it is added then."""
    broken.add("all")
    async with started(**options) as manager:
        group = await manager.enqueue_group(
            [step(double, 1)], callback=chain(step(fragile, previous_result), step(note, previous_result))
        )
        assert (await manager.wait(group.group_id)).status == "failed"
        broken.clear()
        again = await manager.dispatcher.retry(group.group_id)
        assert (await manager.wait(again.task_id)).status == "success"
        (last,) = await children(manager, again.task_id)
        await manager.wait(last.task_id)
        assert ran == [1, [2], [2], 2]


async def fragile(numbers: list[int]) -> int:
    """Return the sum, unless all is broken."""
    ran.append(numbers)
    if "all" in broken:
        raise ValueError(numbers)
    return sum(numbers)


async def test_a_queue_without_room_refuses_the_whole_group(options: dict[str, Any]) -> None:
    """Nothing of it is added, and the room that it took is free again."""
    async with started(queues={"tiny": QueueConfig(concurrency=1, max_size=2)}, **options) as manager:
        with pytest.raises(QueueFullError):
            await manager.enqueue_group([step(note, number, queue="tiny") for number in range(4)])
        assert (await manager.journal.list(TaskQuery())).records == ()
        group = await manager.enqueue_group([step(note, number, queue="tiny") for number in range(2)])
        await both_ended(manager, group)
        assert sorted(ran) == [0, 1]
