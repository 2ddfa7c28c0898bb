"""How the managed class takes the place of FastAPI's own."""

from __future__ import annotations

import inspect

import fastapi.dependencies.utils as fastapi_dependencies
import pytest
from fastapi import BackgroundTasks, routing

from fastapi_taskflow import background, injection
from fastapi_taskflow.errors import ConfigurationError


def test_installing_twice_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is replaced once."""
    monkeypatch.setattr(fastapi_dependencies, "BackgroundTasks", BackgroundTasks)
    injection.install()
    first = vars(fastapi_dependencies)["BackgroundTasks"]
    injection.install()
    assert vars(fastapi_dependencies)["BackgroundTasks"] is first
    assert type(first()) is BackgroundTasks


def test_a_release_that_moved_the_name_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text names the release and the way that works."""
    monkeypatch.setattr(fastapi_dependencies, "BackgroundTasks", object)
    with pytest.raises(ConfigurationError, match=r"auto_install does not work with FastAPI .*get_tasks"):
        injection.install()


def test_the_scope_keys_of_fastapi_are_still_there() -> None:
    """A release that renames them would stop us from dropping the tasks of a request that failed."""
    source = inspect.getsource(routing.request_response)
    assert background.REQUEST_STACK in source
    assert background.FUNCTION_STACK in source
