"""The admin application over stand-ins, and clients for it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from fastapi_taskflow.web.app import build_admin_app
from fastapi_taskflow.web.auth.backend import auth_backend_from
from tests.unit.web import fakes, samples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def client_of(
    parts: fakes.Fakes, *, base: str = "http://shop.test", path: str = "/tasks", **headers: str
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application that has the admin application mounted."""
    app = FastAPI()
    app.router.routes.append(Mount(path, app=build_admin_app(parts.parts)))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as client:
        yield client


@pytest.fixture
def shop() -> fakes.Fakes:
    """Stand-ins with a day of a shop in them, arguments shown, no login."""
    return fakes.build(samples.shop(), display_func_args=True)


@pytest.fixture
async def client(shop: fakes.Fakes) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``shop``."""
    async with client_of(shop) as client:
        yield client


def locked(**settings: Any) -> fakes.Fakes:
    """Return stand-ins behind a login of admin with the password secret."""
    return fakes.build(samples.shop(12), auth=auth_backend_from(("admin", "secret")), **settings)
