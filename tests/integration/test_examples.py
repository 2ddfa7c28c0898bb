"""The examples run as they stand."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import eventually, serving


async def test_the_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One month is written, uploaded and told; all months are told of together."""
    monkeypatch.setenv("EXPORTS", str(tmp_path))
    sys.modules.pop("examples.exports", None)
    exports = importlib.import_module("examples.exports")
    async with serving(exports.app) as client:
        first = (await client.post("/exports/3", json="ann@example.com")).json()
        assert (await client.post("/exports/3", json="ann@example.com")).json() == first
        everything = (await client.post("/exports", json="ann@example.com")).json()
        assert (await client.get(f"/exports/{everything}")).json() == 12

        async def told() -> list[str]:
            tasks = (await client.get("/tasks?func_name=tell_one")).json()
            return [task["status"] for task in tasks]

        assert await eventually(told, lambda statuses: statuses == ["success"]) == ["success"]
        (uploaded,) = (await client.get("/tasks?func_name=upload")).json()
        assert (uploaded["attempt"], uploaded["queue"], uploaded["parent_id"]) == (2, "uploads", first)
        (tell,) = (await client.get("/tasks?func_name=tell")).json()
        shown = (await client.get(f"/tasks/{tell['task_id']}")).json()
        assert shown["args"][0] == "[redacted]"
        assert shown["logs"][0]["extra"] == {"address": "[redacted]"}
    assert (tmp_path / "export-12.csv").exists()
