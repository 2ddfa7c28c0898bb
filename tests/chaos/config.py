"""What a run is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """One run.

    Attributes:
        folder: For evidence, log and database file; empty.
        db: ``sqlite`` or ``postgresql``.
        workers: Of uvicorn.
        kills: SIGKILLs to do, beside other faults; at least 2.
        tasks: Go on with the load until so many are accepted.
        seconds: Give up on kills and tasks after so long.
        rate: Requests a second, each of which adds 1 to 3 tasks.
        seed: Of faults and load.
    """

    folder: Path
    db: str = "sqlite"
    workers: int = 1
    kills: int = 10
    tasks: int = 0
    seconds: float = 600.0
    rate: float = 60.0
    seed: int = 1
