"""What is compared with what."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
PEER_VERSION = "0.12.1"
PEER_HOME = ROOT / "benchmarks" / ".peer"


@dataclass(frozen=True, slots=True)
class Variant:
    """One app under one configuration.

    Attributes:
        name: Its short name, for ``--only``.
        label: Its name in the table.
        app: Its ASGI app, as uvicorn is told it.
        sqlite: Whether it gets a fresh SQLite file.
        postgresql: Whether it gets a fresh PostgreSQL database. It runs only where it is named.
        sdk: What an OpenTelemetry SDK traces, its exporter dropping everything: None, only ``tasks``, or ``all``, which
            is FastAPI's own spans too.
        peer: Whether it runs the other package, in the environment made for it.
        frozen: Whether the app calls ``gc.freeze()`` once it is built, as the manual advises for production.
    """

    name: str
    label: str
    app: str = "benchmarks.apps.managed:app"
    sqlite: bool = False
    postgresql: bool = False
    sdk: Literal["tasks", "all"] | None = None
    peer: bool = False
    frozen: bool = False

    @property
    def python(self) -> Path:
        """The interpreter that runs it."""
        return PEER_HOME / "bin" / "python" if self.peer else Path(sys.executable)


BARE = Variant("bare", "FastAPI BackgroundTasks", app="benchmarks.apps.bare:app")
VARIANTS = (
    BARE,
    Variant("bare-sdk", "FastAPI BackgroundTasks, FastAPI traced", app="benchmarks.apps.bare:app", sdk="all"),
    Variant("ours-memory", "fastapi_taskflow, memory"),
    Variant("ours-sqlite", "fastapi_taskflow, SQLite", sqlite=True),
    Variant("ours-postgresql", "fastapi_taskflow, PostgreSQL", postgresql=True),
    Variant("ours-sqlite-sdk", "fastapi_taskflow, SQLite, tasks traced", sqlite=True, sdk="tasks"),
    Variant("bare-frozen", "FastAPI BackgroundTasks, gc frozen", app="benchmarks.apps.bare:app", frozen=True),
    Variant("ours-sqlite-frozen", "fastapi_taskflow, SQLite, gc frozen", sqlite=True, frozen=True),
    Variant("ours-sqlite-sdk-frozen", "the same, tasks traced", sqlite=True, sdk="tasks", frozen=True),
    Variant("ours-sqlite-all", "fastapi_taskflow, SQLite, all traced", sqlite=True, sdk="all"),
    Variant("peer-memory", f"fastapi-taskflow {PEER_VERSION}, memory", peer=True),
    Variant("peer-sqlite", f"fastapi-taskflow {PEER_VERSION}, SQLite", peer=True, sqlite=True),
)


def chosen(only: str | None) -> list[Variant]:
    """Return the variants named in a comma-separated list, without one all that need no server; installs the peer.

    Raises:
        SystemExit: If a name is unknown.
    """
    names = {variant.name for variant in VARIANTS if not variant.postgresql} if only is None else set(only.split(","))
    unknown = names - {variant.name for variant in VARIANTS}
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(variant.name for variant in VARIANTS)}")
    selected = [variant for variant in VARIANTS if variant.name in names]
    if any(variant.peer for variant in selected):
        install_peer()
    return selected


def install_peer() -> None:
    """Install the other package into an environment of its own, with the same FastAPI and server as here."""
    stamp = PEER_HOME / f".installed-{PEER_VERSION}"
    if stamp.exists():
        return
    venv.create(PEER_HOME, with_pip=True)
    same = [f"{name}=={version(name)}" for name in ("fastapi", "starlette", "pydantic", "uvloop", "httptools")]
    needs = [f"fastapi-taskflow=={PEER_VERSION}", f"uvicorn[standard]=={version('uvicorn')}", *same]
    python = PEER_HOME / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs], check=True)
    stamp.touch()
