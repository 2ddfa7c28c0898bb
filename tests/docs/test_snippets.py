"""The manual is a program: its Python blocks parse, and those with a title run as they stand."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"^(?P<indent> *)```python\b(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```\s*$", re.DOTALL | re.MULTILINE
)
NOT_RUN = "# run: no"
RUNNER = """
import runpy, sys
names = runpy.run_path(sys.argv[1], run_name="__main__")
if "app" in names:
    from starlette.testclient import TestClient
    with TestClient(names["app"]) as client:
        assert client.get("/openapi.json").status_code == 200
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One Python block of the manual.

    Attributes:
        page: The page's path from the repository's root.
        line: The line of its fence, from 1.
        title: The file name that the fence gives, or None.
        code: The block's text.
    """

    page: str
    line: int
    title: str | None
    code: str

    @property
    def runs(self) -> bool:
        """Whether it is a full program that can run here."""
        return self.title is not None and NOT_RUN not in self.code

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(text: str, page: str) -> list[Block]:
    """Return the Python blocks of a page."""
    found = []
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', match["info"])
        code = textwrap.dedent(match["body"])
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, title[1] if title else None, code))
    return found


def manual() -> list[Block]:
    """Return the Python blocks of the README and of every page under docs."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        block for page in pages for block in blocks_of(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))
    ]


@pytest.mark.parametrize("block", manual(), ids=str)
def test_the_block_is_python(block: Block) -> None:
    """Each block parses; a fragment may await at its top level."""
    compile(block.code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


@pytest.mark.parametrize("block", [block for block in manual() if block.runs], ids=str)
def test_the_program_runs(block: Block, tmp_path: Path) -> None:
    """A titled block runs alone in an empty folder, warnings as errors; an ``app`` in it starts, answers and stops."""
    file = tmp_path / Path(block.title or "main.py").name
    file.write_text(block.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, file.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{block} failed:\n{done.stdout}\n{done.stderr}"


def test_blocks_are_found_where_they_stand() -> None:
    """Titles, indents and lines are read right, so that no block is passed over in silence."""
    text = 'Text\n\n```python title="main.py"\na = 1\n```\n\n    ```python\n    b = 2\n    ```\n\n```bash\nls\n```\n'
    assert blocks_of(text, "page.md") == [
        Block("page.md", 3, "main.py", "a = 1\n"),
        Block("page.md", 7, None, "b = 2\n"),
    ]


def test_a_block_can_say_that_it_does_not_run() -> None:
    """A titled block with the mark is checked for its syntax alone."""
    assert Block("page.md", 1, "main.py", "a = 1\n").runs
    assert not Block("page.md", 1, "main.py", f"{NOT_RUN}\na = 1\n").runs
    assert not Block("page.md", 1, None, "a = 1\n").runs
