"""Where figures are kept, and what they were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.variants import PEER_VERSION, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARIES = ("fastapi", "starlette", "uvicorn", "uvloop", "opentelemetry-sdk", "sqlalchemy", "aiosqlite")


def machine() -> dict[str, object]:
    """Return what the figures depend on: processor, Python and libraries."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "libraries": {name: version(name) for name in LIBRARIES},
        "peer": PEER_VERSION,
    }


def save(name: str, figures: Mapping[str, object]) -> Path:
    """Write the figures into ``benchmarks/results`` and return the file's path from the root."""
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return path.relative_to(ROOT)
