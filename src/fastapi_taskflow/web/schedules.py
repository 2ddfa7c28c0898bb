"""Routes on schedules: list, run now, pause, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.responses import Response

from fastapi_taskflow.task.cron import CronTimes
from fastapi_taskflow.task.schedule import Every
from fastapi_taskflow.web.answers import json_answer, problems
from fastapi_taskflow.web.parts import Parts
from fastapi_taskflow.web.schemas import SafeJSONResponse, iso
from fastapi_taskflow.web.shapes import Changed, ScheduledOnceShape, ScheduleShape
from fastapi_taskflow.web.tasks import shown

if TYPE_CHECKING:
    from fastapi_taskflow.task.once import ScheduledOnce
    from fastapi_taskflow.task.schedule import ScheduleView

router = APIRouter(prefix="/schedules")


@router.get(
    "",
    response_class=Response,
    responses={**json_answer(list[ScheduleShape], "Each schedule, as declared"), **problems(503)},
)
async def schedules(parts: Parts) -> Response:
    """Return the schedules that this process declares, with what all instances made of them."""
    return SafeJSONResponse([_schedule_json(view) for view in await parts.scheduler.views()])


@router.get(
    "/once",
    response_class=Response,
    responses={**json_answer(list[ScheduledOnceShape], "Each task that waits, the first due first"), **problems(503)},
)
async def scheduled_once(parts: Parts) -> Response:
    """Return the tasks that run once and wait for their time, in whatever process."""
    return SafeJSONResponse([_once_json(each) for each in await parts.one_offs.waiting()])


@router.post(
    "/{name}/run",
    response_class=Response,
    responses={**json_answer(Changed, "The new task"), **problems(404, 429, 503)},
)
async def run(parts: Parts, name: str) -> Response:
    """Run a schedule's function now, paused or not; its slots stay as they are."""
    record = await parts.scheduler.run(name)
    return SafeJSONResponse({"task_id": record.task_id, "task": shown(parts, record)})


@router.post(
    "/{name}/pause",
    response_class=Response,
    responses={**json_answer(ScheduleShape, "The schedule after it"), **problems(404, 503)},
)
async def pause(parts: Parts, name: str) -> Response:
    """Let a schedule's slots pass by, in all instances."""
    return SafeJSONResponse(_schedule_json(await parts.scheduler.pause(name)))


@router.post(
    "/{name}/resume",
    response_class=Response,
    responses={**json_answer(ScheduleShape, "The schedule after it"), **problems(404, 503)},
)
async def resume(parts: Parts, name: str) -> Response:
    """Have a schedule's slots run again, from the next one on."""
    return SafeJSONResponse(_schedule_json(await parts.scheduler.resume(name)))


def _once_json(each: ScheduledOnce) -> dict[str, Any]:
    return {
        "task_id": each.task_id,
        "run_key": each.run_key,
        "func_name": each.func_name,
        "run_at": iso(each.run_at.timestamp()),
        "created_at": iso(each.created_at.timestamp()),
        "tags": list(each.tags),
        "queue": each.queue,
        "priority": each.priority,
    }


def _schedule_json(view: ScheduleView) -> dict[str, Any]:
    schedule, times, task = view.schedule, view.schedule.times, view.last_task
    return {
        "name": schedule.name,
        "function": schedule.definition.code_name,
        "every": times.seconds if isinstance(times, Every) else None,
        "cron": times.line if isinstance(times, CronTimes) else None,
        "timezone": times.zone.key if isinstance(times, CronTimes) else None,
        "jitter": schedule.jitter,
        "overlap": schedule.overlap,
        "misfire": schedule.misfire,
        "run_on_startup": schedule.run_on_startup,
        "tags": list(schedule.tags),
        "paused": view.paused,
        "next_runs": [iso(slot) for slot in view.next_runs],
        "last_slot": iso(view.last_slot),
        "last_task_id": task.task_id if task is not None else None,
        "last_task_status": task.status.value if task is not None else None,
    }
