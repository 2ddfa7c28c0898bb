"""``python -m tests.chaos``: one run by options, its report, and an exit code that says whether it passed."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.chaos.config import Config
from tests.chaos.harness import run
from tests.chaos.report import text

TASKS_A_KILL: Final = 200


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--db", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--workers", type=int, default=4, help="of uvicorn")
    parser.add_argument("--kills", type=int, default=10, help="SIGKILLs, beside other faults; at least 2")
    parser.add_argument("--tasks", type=int, help=f"go on until so many are accepted; {TASKS_A_KILL} a kill by default")
    parser.add_argument("--seconds", type=float, default=1200.0, help="give up after so long")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second, with 1 to 3 tasks each")
    parser.add_argument("--seed", type=int, default=1, help="of faults and load")
    parser.add_argument("--folder", type=Path, help="keep evidence, log and database here; it must be empty")
    return parser


def main() -> int:
    """Run; return 0 if everything held."""
    given = vars(options().parse_args())
    folder = given.pop("folder") or Path(tempfile.mkdtemp(prefix="taskflow-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.stderr.write(f"{folder} is not empty\n")
        return 2
    if given["tasks"] is None:
        given["tasks"] = given["kills"] * TASKS_A_KILL
    result = asyncio.run(run(Config(folder=folder.resolve(), **given)))
    sys.stdout.write(f"{text(result)}\nkept in {folder}\n")
    return 1 if result.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
