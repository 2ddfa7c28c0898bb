"""Real programs that some tests speak to: skipped where one is missing, unless this is CI, where that is a failure."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def require_program(*names: str) -> str:
    """Return the path of the first of these programs that is installed.

    Args:
        names: What the program may be called, for example ``"chromium", "google-chrome"``.

    Returns:
        Its full path. Where none is there the test is skipped, and fails when the environment says ``CI=true``.
    """
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing(f"{' or '.join(names)} is not installed")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test for this reason, or fail it in CI: what is not there must not pass there in silence."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
