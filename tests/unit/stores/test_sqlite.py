"""What is particular to SQLite."""

from __future__ import annotations

import pytest

from fastapi_taskflow.stores.sqlite import company_warning


@pytest.mark.parametrize(("version", "warned"), [((3, 40, 1), True), ((3, 51, 2), True), ((3, 51, 3), False)])
def test_several_processes_are_warned_by_version(version: tuple[int, ...], warned: bool) -> None:  # noqa: FBT001
    """The message names the version and the way out."""
    text = company_warning(version)
    assert (text is not None) == warned
    if text is not None:
        assert ".".join(map(str, version)) in text
        assert "PostgreSQL" in text
