"""The fixtures, in a test run of their own as a user has it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAIN = """
from fastapi import BackgroundTasks, FastAPI
from fastapi_taskflow import TaskAdmin, TaskManager

app = FastAPI()
task_manager = TaskManager()
TaskAdmin(app, task_manager, auto_install=True)
sent = []

@task_manager.task(retries=1, delay=3600)
async def send_email(address: str) -> None:
    sent.append(address)
    if len(sent) == 1:
        raise ConnectionError

@app.post("/signup")
async def signup(background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(send_email, "a@b.c")
"""

CONFTEST = """
import pytest
import main

pytest_plugins = ["fastapi_taskflow.testing.fixtures"]

@pytest.fixture
def task_manager():
    return main.task_manager
"""

TESTS = """
from fastapi.testclient import TestClient
import main

def test_captured(captured_tasks):
    with TestClient(main.app) as client:
        client.post("/signup")
    captured_tasks.assert_enqueued(main.send_email, "a@b.c")
    assert main.sent == []

def test_clock(task_clock):
    with TestClient(main.app) as client:
        client.post("/signup")
        assert main.sent == ["a@b.c"]
        client.portal.call(task_clock.advance, 3600)
    assert main.sent == ["a@b.c"] * 2
"""


def pytest_in(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest there."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_fixtures_work_as_documented(tmp_path: Path) -> None:
    """With the one that names the manager; without it a test is told what to do."""
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_app.py").write_text(TESTS)
    done = pytest_in(tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["fastapi_taskflow.testing.fixtures"]\n')
    done = pytest_in(tmp_path)
    assert "override the fixture task_manager in conftest.py" in done.stdout


def test_the_package_needs_no_pytest() -> None:
    """Only the fixtures import it."""
    code = "import sys, fastapi_taskflow.testing; assert 'pytest' not in sys.modules and '_pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
