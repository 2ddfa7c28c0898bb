"""The admin application, to be mounted under one path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware

from fastapi_taskflow.web import audit, dead_letters, history, instances, metrics, queues, schedules, status, tasks
from fastapi_taskflow.web.acts import Audit
from fastapi_taskflow.web.auth import routes as auth
from fastapi_taskflow.web.auth.guard import Guard
from fastapi_taskflow.web.auth.sessions import Sessions
from fastapi_taskflow.web.auth.throttle import LoginThrottle
from fastapi_taskflow.web.dashboard import assets, live
from fastapi_taskflow.web.dashboard import routes as dashboard
from fastapi_taskflow.web.errors import install_error_handlers
from fastapi_taskflow.web.headers import SecurityHeaders
from fastapi_taskflow.web.health import HealthCheck

if TYPE_CHECKING:
    from fastapi_taskflow.web.parts import AdminParts


def build_admin_app(parts: AdminParts) -> FastAPI:
    """Return the application. Mount it so that ``root_path`` of the scope ends with the mount's path."""
    settings = parts.settings
    sessions = Sessions(
        parts.store, secret_key=settings.secret_key, lifetime=settings.token_expiry, backend=settings.auth
    )
    throttle = LoginThrottle()
    app = FastAPI(
        title=settings.title,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(Guard, settings=settings, sessions=sessions, throttle=throttle),
            Middleware(Audit, store=parts.store),
        ],
    )
    app.state.parts = parts
    app.state.health = HealthCheck(parts.store, parts.journal)
    app.state.sessions = sessions
    app.state.throttle = throttle
    install_error_handlers(app)
    # Routes with a task's id come last: "metrics" is no id.
    facts = (
        metrics.router,
        history.router,
        dead_letters.router,
        status.router,
        instances.router,
        queues.router,
        audit.router,
        schedules.router,
    )
    pages = (auth.router, assets.router, live.router, dashboard.router)
    for router in (*facts, *pages, tasks.router):
        app.include_router(router)
    return app
