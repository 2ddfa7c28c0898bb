"""The shop's application."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from examples.shop import images, orders, reports, webhooks
from examples.shop.manager import task_manager
from examples.shop.nightly import nightly_job
from examples.shop.settings import settings
from examples.shop.tracing import configure_tracing
from fastapi_taskflow import TaskAdmin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STATIC: Final = Path(__file__).parent / "static"


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Run the nightly job beside the shop."""
    async with nightly_job():
        yield


def create_app() -> FastAPI:
    """Make the shop: ``uvicorn examples.shop.app:create_app --factory``."""
    configure_tracing()
    app = FastAPI(title="Shop", lifespan=lifespan)
    for part in (orders, images, reports, webhooks):
        app.include_router(part.router)

    @app.get("/", include_in_schema=False)
    async def front() -> FileResponse:
        """Show a page to try each of them."""
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    TaskAdmin(app, task_manager, auto_install=True, auth=settings.login, display_func_args=True, title="Shop tasks")
    return app
