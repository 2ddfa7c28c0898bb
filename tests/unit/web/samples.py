"""Records of every kind, as a shop would have them."""

from __future__ import annotations

import random
import time

from fastapi_taskflow.task.record import Attempt, LogEntry, SpanFact, TaskRecord, TaskStatus, new_task_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
STACK = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 41, in call_webhook
    response.raise_for_status()
  File "/srv/shop/.venv/lib/python3.12/site-packages/httpx/_models.py", line 829, in raise_for_status
    raise HTTPStatusError(message, request=request, response=self)
httpx.HTTPStatusError: Server error '503 Service Unavailable' for url 'https://partner.example/hooks/orders'
"""


def record(status: TaskStatus = TaskStatus.SUCCESS, **facts: object) -> TaskRecord:
    """Return a plain record with ``facts``."""
    now = time.time()
    plain: dict[str, object] = {
        "task_id": new_task_id(),
        "func_name": "send_email",
        "status": status,
        "created_at": now - 5,
        "ready_at": now - 5,
        "attempt": 1,
        "start_time": now - 4.5,
        "end_time": now - 4.2,
        "owner": "0f3c0f6e-7b1f-4d0c-9a5e-9a8f3b5f7c11",
    }
    if status is TaskStatus.PENDING:
        plain.update(attempt=0, start_time=None, end_time=None)
    if status is TaskStatus.RUNNING:
        plain.update(end_time=None)
    return TaskRecord(**{**plain, **facts})  # type: ignore[arg-type]


def failed_webhook() -> TaskRecord:
    """Return a task that failed three times, with logs, spans and a trace."""
    t = time.time() - 95.0
    return record(
        TaskStatus.FAILED,
        func_name="call_webhook",
        created_at=t,
        ready_at=t + 3.9,
        attempt=3,
        max_attempts=3,
        start_time=t + 3.92,
        end_time=t + 4.61,
        error="Server error '503 Service Unavailable' for url 'https://partner.example/hooks/orders'",
        error_type="httpx.HTTPStatusError",
        stacktrace=STACK,
        tags=("order:1042", "partner:acme"),
        idempotency_key="order-1042-webhook",
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
        span_id="a3ce929d0e0e4736",
        payload='{"args":[1042],"kwargs":{}}',
        attempts=(
            Attempt(1, t + 0.004, t + 0.81, "httpx.HTTPStatusError", "503 Service Unavailable", "1111111111111111"),
            Attempt(
                2, t + 1.32, t + 2.9, "httpx.ReadTimeout", "the partner did not answer in 1.5 s", "2222222222222222"
            ),
        ),
        logs=(
            LogEntry(t + 0.01, "info", "calling the partner", 1, {"url": "https://partner.example/hooks/orders"}),
            LogEntry(t + 0.8, "warning", "503, will try again", 1, {"status": 503}),
            LogEntry(t + 1.33, "info", "calling the partner", 2),
            LogEntry(t + 2.89, "warning", "no answer in time", 2),
            LogEntry(t + 3.93, "debug", "connection reused", 3, {"pool": "partner"}),
            LogEntry(t + 4.6, "error", "giving up", 3, {"status": 503, "order": 1042}),
        ),
        spans=(
            SpanFact(
                "aaaaaaaaaaaaaaa1",
                "a3ce929d0e0e4736",
                "load order",
                "internal",
                t + 3.93,
                t + 3.99,
                "unset",
                {"order.id": 1042},
            ),
            SpanFact(
                "aaaaaaaaaaaaaaa3",
                "aaaaaaaaaaaaaaa1",
                "SELECT orders",
                "client",
                t + 3.94,
                t + 3.98,
                "unset",
                {"db.system.name": "sqlite"},
            ),
            SpanFact(
                "aaaaaaaaaaaaaaa2",
                "a3ce929d0e0e4736",
                "POST",
                "client",
                t + 4.0,
                t + 4.6,
                "error",
                {"http.response.status_code": 503, "url.full": "https://partner.example/hooks/orders"},
            ),
        ),
    )


def odd() -> TaskRecord:
    """Return a task whose every text is hostile."""
    text = "<script>alert(1)</script>\ud800\0\u202e{{7*7}}'\""
    return record(
        TaskStatus.FAILED,
        func_name=f"odd {text}",
        error=text,
        error_type=text,
        stacktrace=text,
        tags=(text, "a&b=c", "=1+1"),
        idempotency_key=text,
        queue=text,
        logs=(LogEntry(time.time(), "info", text, 1, {text: float("nan"), "inf": float("inf")}),),
        spans=(SpanFact("b" * 16, "c" * 16, text, "internal", 1.0, 2.0, "unset", {text: text}),),
        result='{"x": NaN}',
        payload='{"args":["\\ud800"],"kwargs":{}}',
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
    )


def shop(number: int = 140) -> list[TaskRecord]:
    """Return a day in a shop's life, newest last."""
    dice = random.Random(7)
    now = time.time()
    kinds = (
        ("send_order_confirmation", 0.12),
        ("update_stock", 0.02),
        ("render_thumbnail", 1.4),
        ("build_sales_report", 19.0),
    )
    made = []
    for index in range(number):
        name, usual = dice.choice(kinds)
        created = now - (number - index) ** 1.35 * 7 - 20
        wait = dice.expovariate(30)
        took = usual * dice.uniform(0.4, 2.2)
        bad = dice.random() < 0.06
        made.append(
            record(
                TaskStatus.FAILED if bad else TaskStatus.SUCCESS,
                func_name=name,
                created_at=created,
                ready_at=created,
                start_time=created + wait,
                end_time=created + wait + took,
                tags=(f"order:{1000 + index}",) if usual < 1 else (),
                error="the mailbox is full" if bad else None,
                error_type="smtplib.SMTPRecipientsRefused" if bad else None,
                executor="async" if usual < 1 else "thread",
                max_attempts=4 if usual < 1 else 1,
            )
        )
    return [*made, *_various(now), failed_webhook()]


def _various(now: float) -> list[TaskRecord]:
    return [
        record(
            TaskStatus.CANCELLED,
            func_name="build_sales_report",
            created_at=now - 400,
            ready_at=now - 400,
            start_time=None,
            end_time=now - 390,
            attempt=0,
        ),
        record(
            TaskStatus.INTERRUPTED,
            func_name="render_thumbnail",
            created_at=now - 300,
            ready_at=now - 300,
            start_time=now - 299.9,
            end_time=now - 250,
            error="its process ended while it ran",
        ),
        record(
            TaskStatus.REJECTED,
            func_name="send_order_confirmation",
            created_at=now - 120,
            start_time=None,
            end_time=now - 119,
            attempt=0,
            error="the queue is full",
        ),
        record(
            TaskStatus.RUNNING,
            func_name="build_sales_report",
            created_at=now - 12,
            ready_at=now - 12,
            start_time=now - 11.8,
            executor="thread",
            progress=0.42,
            progress_text="<b>page 3",
            tags=("month:2026-11", "finance"),
            logs=(
                LogEntry(now - 11, "info", "reading 48,210 orders"),
                LogEntry(now - 4, "info", "wrote 20,000 rows", 1, {"file": "sales.csv"}),
            ),
        ),
        record(
            TaskStatus.RUNNING,
            func_name="render_thumbnail",
            created_at=now - 2,
            ready_at=now - 2,
            start_time=now - 1.97,
            executor="thread",
            tags=("image:88",),
        ),
        record(
            TaskStatus.PENDING,
            func_name="send_order_confirmation",
            created_at=now - 1,
            ready_at=now - 1,
            tags=("order:1188", "vip"),
        ),
        record(
            TaskStatus.PENDING,
            func_name="call_webhook",
            created_at=now - 30,
            ready_at=now + 40,
            run_at=now + 40,
            attempt=1,
            max_attempts=4,
            attempts=(Attempt(1, now - 29.9, now - 29, "httpx.ConnectError", "connection refused"),),
            error="connection refused",
            error_type="httpx.ConnectError",
        ),
    ]
