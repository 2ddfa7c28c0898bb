"""The shop's application."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from examples.shop import images, nightly, orders, reports, sizes, webhooks  # noqa: F401 - nightly declares its schedule
from examples.shop.manager import task_manager
from examples.shop.settings import settings
from examples.shop.tracing import configure_tracing
from fastapi_taskflow import TaskAdmin

STATIC: Final = Path(__file__).parent / "static"


def create_app() -> FastAPI:
    """Make the shop: ``uvicorn examples.shop.app:create_app --factory``."""
    configure_tracing()
    app = FastAPI(title="Shop")
    for part in (orders, images, sizes, reports, webhooks):
        app.include_router(part.router)

    @app.get("/", include_in_schema=False)
    async def front() -> FileResponse:
        """Show a page to try each of them."""
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    TaskAdmin(app, task_manager, auto_install=True, auth=settings.login, display_func_args=True, title="Shop tasks")
    return app
