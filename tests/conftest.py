"""What every test may ask for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.programs import require_program

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nothing listened on a moment ago, for programs that cannot take port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def promtool() -> str:
    """The path of promtool."""
    return require_program("promtool")


@pytest.fixture
def prometheus() -> str:
    """The path of the Prometheus server."""
    return require_program("prometheus")


@pytest.fixture
def chromium() -> str:
    """The path of a Chromium browser."""
    return require_program("chromium", "chromium-browser", "google-chrome")
