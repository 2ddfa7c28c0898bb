from __future__ import annotations

import json

import pytest

from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.web.schemas import dump, iso, record_json
from tests.unit.web import fakes, samples
from tests.unit.web.conftest import client_of

ROUTES = ("/tasks/", "/tasks/{id}", "/tasks/{id}/trace", "/tasks/history", "/tasks/history?format=csv",
          "/tasks/history?format=ndjson", "/tasks/metrics", "/tasks/functions", "/tasks/dashboard",
          "/tasks/dashboard/{id}")  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
async def test_no_text_breaks_a_route(route: str) -> None:
    """Surrogates, NUL, markup and NaN pass every route, and markup stays text."""
    task = samples.odd()
    async with client_of(fakes.build([task], display_func_args=True)) as client:
        answer = await client.get(route.format(id=task.task_id))
    assert answer.status_code == 200
    answer.content.decode("utf-8")
    if "html" in answer.headers["content-type"]:
        assert "<script>alert" not in answer.text
        assert "&lt;script&gt;" in answer.text
        assert "\0" not in answer.text
    if "json" in answer.headers["content-type"]:
        assert answer.content.isascii()
        for line in answer.text.splitlines():
            json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


async def test_ten_megabytes_are_shown() -> None:
    """The API gives all of a huge text, the page a part of it."""
    text = "x" * 10_000_000
    task = samples.record(TaskStatus.FAILED, error=text, stacktrace=text, result=json.dumps(text))
    async with client_of(fakes.build([task])) as client:
        assert (await client.get(f"/tasks/{task.task_id}")).json()["error"] == text
        page = await client.get(f"/tasks/dashboard/{task.task_id}")
        assert (await client.get("/tasks/dashboard")).status_code == 200
    assert page.status_code == 200
    assert len(page.text) < 400_000
    assert "characters left out" in page.text


def test_numbers_that_json_lacks_become_text() -> None:
    """NaN and the infinities are strings wherever they are, as keys too."""
    value = {"a": [float("nan"), (float("inf"),)], float("-inf"): 1.5}
    assert json.loads(dump(value)) == {"a": ["NaN", ["Infinity"]], "-Infinity": 1.5}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("\ud800", "\\ud800"),
        ("a\udc00b", "a\\udc00b"),
        ("\ud800\ud800\udc00", "\\ud800\U00010000"),
        ("\U0001f600", "\U0001f600"),
        ("\\ud800 \U0001f600", "\\ud800 \U0001f600"),
        ("\\\ud800", "\\\\ud800"),
        ("\0\n\u00e9\ud7ff\ue000", "\0\n\u00e9\ud7ff\ue000"),
    ],
)
def test_half_a_character_is_spelled_out(text: str, read: str) -> None:
    """Strict parsers refuse a lone surrogate, and with it the whole page of tasks. All else comes back as it was."""
    sent = dump({text: [text]})
    assert sent.isascii()
    got = json.loads(sent)
    assert got == {read: [read]}
    assert json.dumps(got, ensure_ascii=False).encode("utf-8")


def test_times_that_no_calendar_has_are_null() -> None:
    """A time beyond the year 9999 does not break the record."""
    assert record_json(samples.record(run_at=1e300))["run_at"] is None
    assert iso(float("nan")) is None
