"""Fixtures for pytest.

In ``conftest.py``::

    pytest_plugins = ["fastapi_taskflow.testing.fixtures"]

    @pytest.fixture
    def task_manager() -> TaskManager:
        return main.task_manager
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.testing.capture import CapturedTasks, capture_tasks
from fastapi_taskflow.testing.fake_clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi_taskflow.manager import TaskManager


@pytest.fixture
def task_manager() -> TaskManager:
    """The application's manager; to be overridden."""
    pytest.fail("override the fixture task_manager in conftest.py, and let it return your application's TaskManager")


@pytest.fixture
def captured_tasks(task_manager: TaskManager) -> Iterator[CapturedTasks]:
    """What the test adds, instead of being run."""
    with capture_tasks(task_manager) as captured:
        yield captured


@pytest.fixture
def task_clock(task_manager: TaskManager) -> Iterator[FakeClock]:
    """The time, which stands still until the test moves it. Ask for it before what starts the application."""
    with FakeClock(task_manager) as clock:
        yield clock
