"""Settings are checked when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.settings import Settings


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"commit_timeout": 0}, "commit_timeout must be above zero, not 0"),
        ({"commit_timeout": "5"}, "commit_timeout must be a number, not '5'"),
        ({"retention_days": -1}, "retention_days must be above zero, not -1"),
        ({"max_concurrent_tasks": True}, "max_concurrent_tasks must be a number, not True"),
        ({"shutdown_timeout": -0.1}, "shutdown_timeout must not be negative, not -0.1"),
        ({"max_recoveries": None}, "max_recoveries must be a number, not None"),
        ({"lease": float("nan")}, "lease must be above zero, not nan"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(option: dict[str, Any], text: str) -> None:
    """Nothing starts with a setting that cannot work."""
    with pytest.raises(ConfigurationError, match=text):
        Settings(**option)


def test_defaults_and_limits_that_mean_none() -> None:
    """None is no limit; zero seconds at shutdown is a choice."""
    assert Settings(retention_days=None, max_concurrent_tasks=None, shutdown_timeout=0).lease == 15.0
