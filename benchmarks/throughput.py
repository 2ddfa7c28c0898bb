"""Requests a second with one no-op task each, every variant in turn, several rounds in one run."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.results import machine, save
from benchmarks.server import serve
from benchmarks.variants import BARE, chosen
from benchmarks.wrk import Load, run_wrk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.server import Server
    from benchmarks.variants import Variant

WARM_UP = 1.0
LOST_ALLOWED = 16  # wrk hangs up on the requests that are open at its end, one a connection


@dataclass(frozen=True, slots=True)
class Round:
    """One variant in one round.

    Attributes:
        load: What the client saw.
        cpu: CPU time of the server, µs a request.
        ratio: Requests a second compared with bare in the same round; None without bare.
        cpu_ratio: Bare's CPU time a request compared with this one's: as ``ratio``, but steady on a busy machine.
        ran: Tasks that ran, of those whose requests were answered, at most 1.
    """

    load: Load
    cpu: float
    ratio: float | None
    cpu_ratio: float | None
    ran: float


def warm_up(server: Server) -> None:
    """Load it for a moment that is not counted."""
    load = run_wrk(server.url + "/one", WARM_UP)
    server.wait_done(load.requests - LOST_ALLOWED)


def measure(variant: Variant, server: Server, seconds: float, bare: Round | None) -> Round:
    """Load a server, and count what ran."""
    before = server.wait_done(0)
    cpu = server.cpu_seconds()
    load = run_wrk(server.url + "/one", seconds)
    cpu = server.cpu_seconds() - cpu
    done = server.wait_done(before + load.requests) - before
    cost = cpu / load.requests * 1e6
    ran = min(1.0, done / load.requests)
    if variant == BARE:
        return Round(load, cost, 1.0, 1.0, ran)
    if bare is None:
        return Round(load, cost, None, None, ran)
    return Round(load, cost, load.rate / bare.load.rate, bare.cpu / cost, ran)


def run(variants: Sequence[Variant], rounds: int, seconds: float) -> dict[str, list[Round]]:
    """Measure every variant in every round. Bare comes first; the others change places from round to round.

    All servers are up from the first round to the last, and one at a time is under load. So a round is short, and what
    else the machine does meanwhile meets every variant alike.
    """
    results: dict[str, list[Round]] = {variant.name: [] for variant in variants}
    others = [variant for variant in variants if variant != BARE]
    with ExitStack() as stack:
        servers = {variant.name: stack.enter_context(serve(variant)) for variant in variants}
        for server in servers.values():
            warm_up(server)
        for number in range(rounds):
            turn = number % len(others) if others else 0
            for variant in [*([BARE] if BARE in variants else []), *others[turn:], *others[:turn]]:
                bare = results[BARE.name][number] if BARE.name in results and results[BARE.name][number:] else None
                result = measure(variant, servers[variant.name], seconds, bare)
                results[variant.name].append(result)
                note = f"round {number + 1}/{rounds}  {variant.label:52} {result.load.rate:8.0f} req/s"
                print(note, file=sys.stderr, flush=True)
    return results


def table(variants: Sequence[Variant], results: Mapping[str, Sequence[Round]]) -> str:
    """Return the medians of all rounds as text."""
    head = ("", "req/s", "ratio", "CPU µs", "ratio", "p50 ms", "p99 ms", "errors", "ran")
    lines = ["{:52} {:>8} {:>6} {:>7} {:>6} {:>7} {:>7} {:>6} {:>6}".format(*head)]
    for variant in variants:
        rounds = results[variant.name]
        lines.append(
            f"{variant.label:52} {median(item.load.rate for item in rounds):8.0f} "
            f"{middle(item.ratio for item in rounds):>6} {median(item.cpu for item in rounds):7.0f} "
            f"{middle(item.cpu_ratio for item in rounds):>6} {median(item.load.p50 for item in rounds):7.2f} "
            f"{median(item.load.p99 for item in rounds):7.2f} {sum(item.load.errors for item in rounds):6d} "
            f"{min(item.ran for item in rounds):6.1%}"
        )
    return "\n".join(lines)


def middle(ratios: Iterable[float | None]) -> str:
    """Return the median of the known ratios as text, a dash without any."""
    known = [ratio for ratio in ratios if ratio is not None]
    return f"{median(known):.2f}" if known else "-"


def main() -> None:
    """Measure, print the table, and keep every round as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of load, per variant and round")
    parser.add_argument("--only", help="variants, by name and comma; all by default")
    options = parser.parse_args()
    variants = chosen(options.only)
    results = run(variants, options.rounds, options.seconds)
    print(table(variants, results))
    rounds = {name: [asdict(item) for item in items] for name, items in results.items()}
    path = save("throughput", {"machine": machine(), "seconds": options.seconds, "rounds": rounds})
    print(f"every round: {path}")


if __name__ == "__main__":
    main()
