"""Resident memory of the server after 10,000 and after 100,000 finished tasks."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks.results import machine, save
from benchmarks.server import serve
from benchmarks.variants import chosen

if TYPE_CHECKING:
    from benchmarks.variants import Variant

FEW = 10_000
MANY = 100_000
A_REQUEST = 100
PATIENCE = 120.0
MIB = 1024 * 1024
DEFAULT = "bare,ours-memory,ours-sqlite,peer-memory,peer-sqlite"


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory of one variant, MiB.

    Attributes:
        at_start: Before the first task.
        few: After `FEW` finished tasks.
        many: After `MANY` finished tasks.
    """

    at_start: float
    few: float
    many: float


def measure(variant: Variant) -> Footprint:
    """Start the variant, run the tasks and read its memory on the way.

    Raises:
        RuntimeError: If tasks were lost.
    """
    sizes: list[float] = []
    with serve(variant) as server:
        sizes.append(server.rss_bytes() / MIB)
        done = 0
        for target in (FEW, MANY):
            for _ in range((target - done) // A_REQUEST):
                server.get(f"/many?n={A_REQUEST}")
            done = server.wait_done(target, PATIENCE)
            if done != target:
                raise RuntimeError(f"{variant.name}: {done} of {target} tasks ran within {PATIENCE:.0f} s")
            sizes.append(server.rss_bytes() / MIB)
    return Footprint(*sizes)


def main() -> None:
    """Measure, print the table, and keep the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=DEFAULT, help="variants, by name and comma")
    options = parser.parse_args()
    results: dict[str, Footprint] = {}
    print(f"{'resident memory, MiB':40} {'start':>8} {'10k':>8} {'100k':>8} {'growth':>8}")
    for variant in chosen(options.only):
        try:
            size = results[variant.name] = measure(variant)
        except RuntimeError as error:
            print(f"{variant.label:40} {error}", file=sys.stderr)
            continue
        growth = size.many - size.few
        print(f"{variant.label:40} {size.at_start:8.1f} {size.few:8.1f} {size.many:8.1f} {growth:+8.1f}", flush=True)
    path = save("memory", {"machine": machine(), "mib": {name: asdict(size) for name, size in results.items()}})
    print(f"all figures: {path}")


if __name__ == "__main__":
    main()
