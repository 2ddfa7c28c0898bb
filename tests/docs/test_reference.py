"""The reference names everything that the code has."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from starlette.routing import Mount

import fastapi_taskflow
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager, errors, testing
from fastapi_taskflow.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


INNER = {"take_down", "give_up", "now", "call_at", "sleep_until"}
"""Methods of the test aids that only the package calls."""


@pytest.mark.parametrize(
    "function", [TaskManager, TaskManager.task, TaskManager.schedule,
        TaskManager.schedule_once, TaskManager.init_app, TaskAdmin, ManagedBackgroundTasks.add_task]
)
def test_every_option_is_in_the_reference(function: Callable[..., Any], project_root: Path) -> None:
    """No keyword of the public API is missing in the reference."""
    page = (project_root / "docs/reference/api.md").read_text(encoding="utf-8")
    options = set(inspect.signature(function).parameters) - {"self", "args", "kwargs", "func", "app", "task_manager"}
    assert {option for option in options if option not in page} == set()


def test_every_error_is_in_the_reference(project_root: Path) -> None:
    """No error of the tree is missing in the reference."""
    page = (project_root / "docs/reference/api.md").read_text(encoding="utf-8")
    tree = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.TaskflowError)
    }
    assert tree
    assert {name for name in tree if f"`{name}`" not in page} == set()


def test_every_metric_and_attribute_is_in_the_reference(project_root: Path) -> None:
    """No name of the telemetry contract is missing in the reference."""
    folder = project_root / "docs/reference"
    pages = "".join((folder / page).read_text(encoding="utf-8") for page in ("metrics.md", "spans.md"))
    emitted = {
        value
        for key, value in vars(names).items()
        if key.isupper() and isinstance(value, str) and value.startswith(("taskflow", "messaging."))
    }
    assert emitted
    assert {name for name in emitted if f"`{name}" not in pages} == set()


def test_every_public_name_is_in_the_reference(project_root: Path) -> None:
    """No name that users may import is missing in the reference."""
    page = (project_root / "docs/reference/api.md").read_text(encoding="utf-8")
    assert {name for name in fastapi_taskflow.__all__ if not re.search(rf"\b{name}\b", page)} == set()


def test_every_test_aid_is_in_the_manual(project_root: Path) -> None:
    """No name of ``fastapi_taskflow.testing``, and no option or method of one, is missing."""
    pages = "".join(
        (project_root / page).read_text(encoding="utf-8")
        for page in ("docs/reference/api.md", "docs/how-to/test-your-tasks.md")
    )
    told = set(testing.__all__)
    for kind in (testing.CapturedTasks, testing.FakeClock, testing.InlineRun, testing.CapturedTask):
        told |= {name for name in vars(kind) if not name.startswith("_")} - INNER
    told |= set(inspect.signature(testing.CapturedTasks.assert_enqueued).parameters) - {"self"}
    assert {name for name in told if name not in pages} == set()


def test_every_route_is_in_the_reference_and_no_other(project_root: Path) -> None:
    """The table of routes is that of the mounted application, but for the dashboard's own files."""
    page = (project_root / "docs/reference/http.md").read_text(encoding="utf-8")
    app = FastAPI()
    TaskAdmin(app, TaskManager())
    (mount,) = [route for route in app.router.routes if isinstance(route, Mount) and route.name == "taskflow"]
    assert isinstance(mount.app, FastAPI)
    built = {
        (method.upper(), f"/tasks{path}".rstrip("/").replace("{task_id}", "{id}"))
        for path, methods in mount.app.openapi()["paths"].items()
        for method in methods
        if "/static/" not in path
    }
    told = set()
    for row in re.findall(r"^\| (`(?:GET|POST|DELETE|PUT|PATCH) [^|]*) \|", page, re.MULTILINE):
        (method,) = re.findall(r"`([A-Z]+) ", row)
        told |= {(method, path) for path in re.findall(r"(/[^`]*)`", row)}
    assert built
    assert told == built


def test_everything_public_can_be_imported() -> None:
    """The names in ``__all__`` exist."""
    assert fastapi_taskflow.__all__
    assert [name for name in fastapi_taskflow.__all__ if not hasattr(fastapi_taskflow, name)] == []
