"""Arguments are shown to people, bounded and safely."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from fastapi_taskflow.task.payload import display, encode
from tests.unit.task.payload_values import (
    VALUES,
    VIENNA,
    Colour,
    Mode,
    Point,
    ship,
    stored,
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_every_value_can_be_shown(value: Any) -> None:
    """As strict JSON, in UTF-8."""
    shown = display(encode(ship, (value,), {"named": value}))
    json.dumps(shown, allow_nan=False, ensure_ascii=False).encode()


def test_values_are_shown_as_people_write_them() -> None:
    """Plain data stays plain; the rest is text."""
    text = encode(
        ship,
        ("a", 1, (1, 2), Decimal("1.10"), Colour.RED, Mode.A | Mode.B, datetime(2026, 1, 1, tzinfo=VIENNA), b"a"),
        {"order": Point(1), "keys": {1: "x", (2,): "y"}, "wait": timedelta(minutes=1), "nan": float("nan")},
    )
    assert display(text) == {
        "args": [
            "a", 1, [1, 2], "1.10", "Colour.RED", "Mode(5)",
            "2026-01-01T00:00:00 Europe/Vienna", "<bytes in base64: YQ==>",
        ],
        "kwargs": {
            "order": {"<class>": "Point", "x": 1, "y": 0.0},
            "keys": {"1": "x", "[2]": "y"},
            "wait": "60 s",
            "nan": "nan",
        },
    }  # fmt: skip


def test_what_is_shown_is_bounded() -> None:
    """A dashboard page must not become 10 MB."""
    text = encode(ship, (list(range(100_000)), {str(n): n for n in range(100_000)}, 10**4000), {})
    shown = display(text)["args"]
    assert shown[0][-1] == "… 99800 more"
    assert shown[1]["…"] == "99800 more"
    assert shown[2].startswith("0x")


def test_showing_imports_nothing() -> None:
    """Looking at a task is safe, whatever is in its row."""
    text = stored(tag="dataclass", cls="antigravity:X", fields={"x": 1})
    assert display(text)["args"] == [{"<class>": "X", "x": 1}]
    assert "antigravity" not in sys.modules
