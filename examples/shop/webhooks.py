"""``POST /webhooks``: tells a partner of an event. The partner is unreliable, so the task is retried."""

from __future__ import annotations

import random
from typing import Any, Final

import httpx
from fastapi import APIRouter, BackgroundTasks, Response
from opentelemetry import propagate
from pydantic import BaseModel, Field

from examples.shop.manager import task_manager
from examples.shop.settings import settings
from examples.shop.tracing import tracer
from fastapi_taskflow import get_task_context, task_log

router = APIRouter()

FAILING_SHARE: Final = 1 / 3
TLS: Final = httpx.create_ssl_context()
"""Made once: reading the certificates takes milliseconds, in which the loop would stand still."""


class Event(BaseModel):
    """What the partner is told."""

    name: str = Field(min_length=1, max_length=100)
    data: dict[str, Any] = Field(default_factory=dict)


@router.post("/webhooks", status_code=202)
async def send_event(event: Event, background_tasks: BackgroundTasks) -> dict[str, str]:
    """Have the partner told. FastAPI's own ``BackgroundTasks`` is enough: ``auto_install`` makes it a managed one."""
    background_tasks.add_task(deliver_webhook, event)
    return {"accepted": event.name}


@router.post("/partner/webhook")
async def partner(event: Event) -> Response:
    """Play the partner, which fails a third of the time."""
    if random.random() < FAILING_SHARE:
        return Response(f"{event.name}: the partner is having a bad day", status_code=503)
    return Response(status_code=204)


@task_manager.task(queue="webhooks", retries=3, delay=0.5, backoff=2.0)
async def deliver_webhook(event: Event) -> None:
    """Post the event. Whatever goes wrong is raised: the retries are the manager's business."""
    context = get_task_context()
    async with httpx.AsyncClient(base_url=settings.url, timeout=5, verify=TLS, trust_env=False) as client:
        with tracer.start_as_current_span("POST partner") as span:
            headers = {"Idempotency-Key": context.task_id if context else ""}
            propagate.inject(headers)
            answer = await client.post("/partner/webhook", json=event.model_dump(mode="json"), headers=headers)
            span.set_attribute("http.response.status_code", answer.status_code)
            answer.raise_for_status()
    task_log(f"delivered {event.name}", status=answer.status_code)
