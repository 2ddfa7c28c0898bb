"""Stored text is read safely, and after a change of the program."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.payload import decode, display, encode
from tests.unit.task.payload_values import (
    Colour,
    Order,
    Point,
    ship,
    stored,
)

HERE = Colour.__module__


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("null", "cannot be read"),
        ('{"args":{},"kwargs":{}}', "not a list and a dict"),
        ('{"args":[],"kwargs":[]}', "not a list and a dict"),
        ('{"args":' + "[" * 100_000, "cannot be read"),
        (stored(tag="nonsense"), "cannot be read"),
        (stored(tag=["list"]), "cannot be read"),
        (stored(tag="decimal", v="abc"), "cannot be read"),
        (stored(tag="bytes", v="!"), "cannot be read"),
        (stored(tag="zoneinfo", v="Atlantis/Capital"), "cannot be read"),
        (stored(tag="enum", cls="no.such.module:X", v="A"), "no.such.module:X"),
        (stored(tag="enum", cls=f"{HERE}:Gone", v="A"), f"{HERE} has no class Gone any more"),
        (stored(tag="enum", cls="__main__:Gone", v="A"), "started in another way"),
        (stored(tag="enum", cls=f"{HERE}:Colour", v="GREEN"), "the member 'GREEN'"),
        (stored(tag="enum", cls=f"{HERE}:Point", v="A"), "it is not an Enum any more"),
        (stored(tag="model", cls=f"{HERE}:Point", fields={}), "it is not a pydantic model any more"),
        (stored(tag="dataclass", cls="subprocess:Popen", fields={"args": "x"}), "it is not a dataclass any more"),
        (stored(tag="dataclass", cls="os:system", fields={}), "has no class"),
        (stored(tag="dataclass", cls="os:path.join", fields={}), "has no class"),
        (stored(tag="dataclass", cls="os; x:Y", fields={}), "not the name of a class"),
        (stored(tag="dataclass", cls=5, fields={}), "not the name of a class"),
        (stored(tag="dataclass", cls=f"{HERE}:Point", fields={"y": 1}), "the field 'x' is new"),
        (stored(tag="model", cls=f"{HERE}:Line", fields={"sku": "a"}), "does not fit into"),
        (stored(tag="dataclass", cls=f"{HERE}:Money", fields={"amount": 1, "strange": 1}), "cannot be read"),
        (stored(tag="url", cls="BaseModel", v="x"), "cannot be read"),
        (stored(tag="serialized", by="pickle", v=""), "serializer 'pickle'"),
    ],
)
def test_what_cannot_be_read_is_one_kind_of_error(text: str, message: str) -> None:
    """A broken row, or a class that is gone, fails its own task with a clear message."""
    with pytest.raises(TaskArgumentError, match=r"stored argument") as caught:
        decode(text)
    assert message in str(caught.value)
    assert set(display(text)) == {"args", "kwargs"}


def test_a_module_that_fails_to_import_is_one_kind_of_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored class may live in a module that a release has broken."""
    (tmp_path / "broken_module_of_payload_test.py").write_text("raise RuntimeError('half deployed')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskArgumentError, match="RuntimeError: half deployed"):
        decode(stored(tag="enum", cls="broken_module_of_payload_test:X", v="A"))


def test_fields_that_a_release_added_get_their_defaults() -> None:
    """Tasks that wait through a deployment fit into the new class where it has defaults."""
    model = stored(
        tag="model", cls=f"{HERE}:Order", fields={"order_id": str(UUID(int=1)), "lines": [], "at": 0, "old": 1}
    )
    assert decode(model)[0][0] == Order(order_id=UUID(int=1), lines=[], at=datetime(1970, 1, 1, tzinfo=UTC))
    assert decode(stored(tag="dataclass", cls=f"{HERE}:Point", fields={"x": 1}))[0] == (Point(1),)
    private = stored(tag="model", cls=f"{HERE}:Open", fields={"known": 1})
    assert decode(private)[0][0]._secret == 7


def test_classes_of_the_program_itself_work_after_a_restart(tmp_path: Path) -> None:
    """``python app.py`` names its classes ``__main__``; the next start finds them."""
    program = tmp_path / "app.py"
    program.write_text(
        "import sys\n"
        "from dataclasses import dataclass\n"
        "from fastapi_taskflow.task.payload import decode, encode\n"
        "@dataclass\n"
        "class Job:\n"
        "    name: str\n"
        "if len(sys.argv) > 1:\n"
        "    assert decode(sys.argv[1])[0] == (Job('a'),)\n"
        "else:\n"
        "    print(encode(len, (Job('a'),), {}))\n"
    )
    run = functools.partial(subprocess.run, check=True, capture_output=True, text=True, timeout=60)
    text = run([sys.executable, str(program)]).stdout.strip()
    assert "__main__:Job" in text
    run([sys.executable, str(program), text])


def test_classes_of_a_spawned_process_are_named_as_in_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of multiprocessing calls the program ``__mp_main__``; a restart knows ``__main__`` only."""
    main = type(sys)("__mp_main__")
    job: Any = dataclass(type("Job", (), {"__module__": "__mp_main__", "__annotations__": {"x": int}}))
    main.Job = job  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    monkeypatch.setitem(sys.modules, "__main__", main)
    text = encode(ship, (job(1),), {})
    assert '"__main__:Job"' in text
    assert decode(text)[0] == (job(1),)
