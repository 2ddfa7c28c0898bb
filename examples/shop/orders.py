"""``POST /orders``: an order gives a confirmation by mail and takes the goods from the stock."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal
from email.message import EmailMessage
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter
from pydantic import BaseModel, Field

from examples.shop import stock
from examples.shop.manager import task_manager
from examples.shop.settings import settings
from examples.shop.tracing import tracer
from fastapi_taskflow import ManagedBackgroundTasks, task_log

router = APIRouter()


class Line(BaseModel):
    """One line of an order."""

    sku: str = Field(min_length=1, max_length=40)
    quantity: int = Field(default=1, ge=1, le=1000)
    price: Decimal = Field(ge=0, decimal_places=2)


class NewOrder(BaseModel):
    """What a customer sends."""

    email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=200)]
    lines: list[Line] = Field(min_length=1, max_length=100)


class Order(NewOrder):
    """An accepted order."""

    order_id: UUID
    at: datetime

    @property
    def total(self) -> Decimal:
        """The sum of all lines."""
        return sum((line.price * line.quantity for line in self.lines), Decimal())


class MailRefusedError(Exception):
    """The mail server does not take the message."""


@router.post("/orders", status_code=202)
async def place_order(order: NewOrder, tasks: ManagedBackgroundTasks) -> dict[str, str]:
    """Accept an order. When the answer is read, both tasks are stored."""
    accepted = Order(order_id=uuid4(), at=datetime.now(UTC), **order.model_dump())
    tag = f"order:{accepted.order_id}"
    return {
        "order_id": str(accepted.order_id),
        "confirmation_task": tasks.add_task(
            send_confirmation, accepted, tags=[tag], idempotency_key=f"confirm:{accepted.order_id}"
        ),
        "stock_task": tasks.add_task(take_from_stock, accepted.order_id, accepted.lines, tags=[tag]),
    }


@task_manager.task(retries=2, delay=0.5, backoff=2.0)
async def send_confirmation(order: Order) -> None:
    """Write the mail into the outbox, where a real shop would speak to its mail server."""
    message = EmailMessage()
    message["To"] = order.email
    message["Subject"] = f"Your order {order.order_id}"
    message.set_content(f"Thank you! {len(order.lines)} line(s), {order.total} EUR in total.\n")
    with tracer.start_as_current_span("smtp send", attributes={"shop.lines": len(order.lines)}):
        await asyncio.sleep(random.uniform(0.02, 0.15))
        if order.email.endswith(".invalid"):
            msg = f"no mail server for {order.email}"
            raise MailRefusedError(msg)
        path = settings.folder("outbox") / f"{order.order_id}.eml"
        await asyncio.to_thread(path.write_bytes, bytes(message))
    task_log(f"confirmed {order.total} EUR", lines=len(order.lines))


@task_manager.task(requeue_on_interrupt=True)
def take_from_stock(order_id: UUID, lines: list[Line], goods: stock.StockDep) -> None:
    """Take the goods from the stock. It may run twice after a crash, so the stock knows which orders it has seen."""
    with tracer.start_as_current_span("stock update"):
        for line in lines:
            left = stock.take(goods, order_id, line.sku, line.quantity)
            task_log(f"{line.sku}: {left} left", level="warning" if left < stock.FEW else "info")
