from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_taskflow import TaskAdmin, TaskManager
from tests.unit.web.conftest import client_of, locked

SCRAPED = {"GET /metrics", "GET /health"}
LOGIN = {"GET /auth/login", "POST /auth/login"}


def described(**options: Any) -> dict[str, Any]:
    """Return the description of an admin application."""
    return TaskAdmin(FastAPI(), TaskManager(), "/admin/tasks", **options).openapi()


def operations(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every operation by its method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }


def ways_in(description: dict[str, Any]) -> dict[str, list[str]]:
    """Return what each operation that is not open asks for, one of it being enough."""
    return {
        name: [way for either in operation["security"] for way in either]
        for name, operation in operations(description).items()
        if "security" in operation
    }


def test_without_a_login_everything_is_open() -> None:
    """No operation asks for anything, and none answers 401 but a login, which is not there."""
    found = described()
    assert ways_in(found) == {}
    assert "securitySchemes" not in found["components"]
    assert {name for name, operation in operations(found).items() if "401" in operation["responses"]} == {
        "POST /auth/login"
    }


def test_with_a_token_alone_the_scraped_routes_ask_for_it() -> None:
    """The rest stays open, as it is."""
    assert ways_in(described(metrics_token="t")) == {name: ["token"] for name in SCRAPED}


def test_with_a_login_only_the_login_is_open() -> None:
    """A scraper has three ways in, everybody else one; a browser is sent to the login."""
    found = described(auth=("admin", "secret"), metrics_token="t")
    ways = ways_in(found)
    assert set(operations(found)) - set(ways) == LOGIN
    assert {name for name, way in ways.items() if way != ["session"]} == SCRAPED
    assert all(ways[name] == ["session", "token", "basic"] for name in SCRAPED)
    assert set(found["components"]["securitySchemes"]) == {"session", "token", "basic"}
    for name in ways:
        answers = operations(found)[name]["responses"]
        assert "401" in answers, name
        assert "303" in answers or not name.startswith("GET "), name


def test_what_another_site_must_not_do_may_be_refused() -> None:
    """Each unsafe operation tells of 403, no other one does."""
    found = operations(described())
    assert {name for name, each in found.items() if "403" in each["responses"]} == {
        name for name in found if not name.startswith("GET")
    }


def test_each_shape_is_there_and_each_body_has_one() -> None:
    """References lead somewhere, every JSON answer has a shape, and FastAPI's own shapes are gone: ours differ."""
    found = described(auth=("admin", "secret"))
    text = json.dumps(found)
    for name in found["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name
    assert "ValidationError" not in text
    for name, operation in operations(found).items():
        for code, answer in operation["responses"].items():
            shape = answer.get("content", {}).get("application/json", {"schema": True})["schema"]
            assert shape, f"{name} {code}"


def test_the_description_knows_where_it_is_and_says_the_same_each_time() -> None:
    """The paths are those below the mount."""
    admin = TaskAdmin(FastAPI(), TaskManager(), "/admin/tasks", title="Shop")
    found = admin.openapi()
    assert found == admin.openapi()
    assert (found["info"]["title"], found["servers"]) == ("Shop", [{"url": "/admin/tasks"}])


@pytest.mark.parametrize("path", ["/tasks/openapi.json", "/tasks/docs", "/tasks/redoc"])
async def test_it_is_not_served(path: str) -> None:
    """Not to who is signed in, and least of all to who is not."""
    async with client_of(locked()) as client:
        assert (await client.get(path)).status_code == 401
        await client.post("/tasks/auth/login", data={"username": "admin", "password": "secret"})
        assert (await client.get(path)).status_code == 404
