"""Holds what the client was told and what the tasks did against what the store says. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Final

from tests.chaos.evidence import Event
from tests.chaos.faults import KILLS, Fault
from tests.chaos.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.chaos.facts import Accepted, Hit, Row
    from tests.chaos.runs import Run

POISON: Final = "fastapi_taskflow.PoisonTask"
MOST_CUT_OFFS: Final = 3
"""How often a task may be cut off before it is parked as failed: the default of ``max_recoveries``."""


class Broken(StrEnum):
    """A promise that was not kept."""

    LOST = "lost"
    UNSETTLED = "unsettled"
    OVERLAP = "overlap"
    LATE = "late effect"
    REPEATED = "repeated"
    DISAGREES = "status disagrees"
    NOT_STORED = "ran, not stored"
    TWO_IDS = "two ids for a key"


@dataclass(frozen=True, slots=True)
class Violation:
    """One case of it.

    Attributes:
        broken: Which promise.
        task_id: Of which task.
        detail: What was found.
    """

    broken: Broken
    task_id: str
    detail: str


def check(
    accepted: Sequence[Accepted], rows: Mapping[str, Row], runs: Mapping[str, Sequence[Run]], hits: Sequence[Hit]
) -> list[Violation]:
    """Return everything that contradicts the promises.

    Args:
        accepted: What the client was told.
        rows: The store at the end, by id, when everything has had the time to settle.
        runs: What the tasks did, by id.
        hits: What was done to the processes.
    """
    found = [*_lost(accepted, rows), *_two_ids(accepted)]
    for row in rows.values():
        found += _settled(row, runs.get(row.task_id, ()))
    for task_id, its_runs in runs.items():
        if task_id not in rows:
            found.append(Violation(Broken.NOT_STORED, task_id, f"{len(its_runs)} run(s)"))
        found += overlaps(its_runs)
        found += _repeats(its_runs, hits)
    return found


def _lost(accepted: Iterable[Accepted], rows: Mapping[str, Row]) -> Iterator[Violation]:
    for each in accepted:
        if each.task_id not in rows:
            yield Violation(Broken.LOST, each.task_id, f"{each.kind}, accepted at {each.at}, is not in the store")
        elif rows[each.task_id].status in {"rejected", "cancelled"}:
            yield Violation(
                Broken.LOST, each.task_id, f"{each.kind} was accepted, and became {rows[each.task_id].status}"
            )


def _two_ids(accepted: Iterable[Accepted]) -> Iterator[Violation]:
    ids: dict[str, set[str]] = defaultdict(set)
    for each in accepted:
        if each.key is not None:
            ids[each.key].add(each.task_id)
    for key, its_ids in ids.items():
        if len(its_ids) > 1:
            yield Violation(Broken.TWO_IDS, min(its_ids), f"key {key} got {sorted(its_ids)}")


def _settled(row: Row, runs: Sequence[Run]) -> Iterator[Violation]:
    if row.status in {"pending", "running"}:
        owner = "its owner lives" if row.owner_lives else "nobody who lives owns it"
        yield Violation(Broken.UNSETTLED, row.task_id, f"{row.kind} is {row.status} for ever: {owner}")
        return
    wrong = _contradiction(row, runs)
    if wrong is not None:
        yield Violation(Broken.DISAGREES, row.task_id, f"{row.kind} is {row.status}: {wrong}; {_told(runs)}")


def _contradiction(row: Row, runs: Sequence[Run]) -> str | None:
    """Return what the final status and the evidence contradict each other in."""
    match row.status:
        case "success":
            ended = any(run.ended is Event.END and run.attempt == row.attempt for run in runs)
            return None if ended else f"attempt {row.attempt} wrote no end"
        case "failed":
            # None of our tasks fails at last, so only what was cut off too often may be parked.
            parked = row.error_type == POISON and len(runs) > MOST_CUT_OFFS
            return None if parked else f"error {row.error_type}"
        case "interrupted":
            return "it may run again, and has to" if KINDS[row.kind].repeatable else None
        case "rejected":
            return "it ran" if runs else None
        case _:
            return "nobody asked for that"


def overlaps(runs: Sequence[Run]) -> Iterator[Violation]:
    """Find runs of one task at the same time, and runs that went on after another one had taken over.

    An overlap is two runs of which each did something within the other's span. If the first was silent from the second
    one's start to its end, as a stopped process is, what it does afterwards is a late effect.
    """
    for first, second in combinations(sorted(runs, key=lambda run: run.start), 2):
        if first.last < second.start:
            continue
        inside = any(second.start <= at <= second.last for at in first.effects)
        yield Violation(Broken.OVERLAP if inside else Broken.LATE, first.task_id, _told((first, second)))


def _repeats(runs: Sequence[Run], hits: Sequence[Hit]) -> Iterator[Violation]:
    for first, second in pairwise(runs):
        if not _may_follow(first, second, hits):
            yield Violation(Broken.REPEATED, first.task_id, _told((first, second)))


def _may_follow(first: Run, second: Run, hits: Sequence[Hit]) -> bool:
    """Tell whether a run may follow another: as a retry, or where the first may have been cut off."""
    if first.ended is Event.FAIL and second.attempt == first.attempt + 1:
        return True
    if not any(first.pid in hit.pids and hit.since <= second.start and first.start <= hit.until for hit in hits):
        return False
    # A run at most once may be repeated only if it was cut off before the store knew that it ran. Then the store
    # counts its attempt again from where it was.
    return KINDS[first.kind].repeatable or second.attempt == first.attempt


def repeated_at_most_once(runs: Mapping[str, Sequence[Run]]) -> int:
    """Return how many at-most-once tasks began more than once."""
    return sum(not KINDS[its_runs[0].kind].repeatable and len(its_runs) > 1 for its_runs in runs.values())


def taken_over_alive(runs: Mapping[str, Sequence[Run]], hits: Sequence[Hit]) -> int:
    """Return how many runs another process took over while their own was stopped, and not killed meanwhile."""
    return sum(
        first.pid != second.pid
        and any(_stopped(first, hit) and hit.since < second.start < hit.until for hit in hits)
        and not any(first.pid in hit.pids and hit.since < second.start for hit in hits if hit.fault in KILLS)
        for its_runs in runs.values()
        for first, second in pairwise(its_runs)
    )


def _stopped(run: Run, hit: Hit) -> bool:
    return hit.fault == Fault.FREEZE_PAST_LEASE and run.pid in hit.pids and run.start < hit.since


def counted(violations: Iterable[Violation]) -> Mapping[Broken, int]:
    """Return how many cases there are of each broken promise, 0 included."""
    counts = Counter(violation.broken for violation in violations)
    return {broken: counts[broken] for broken in Broken}


def _told(runs: Iterable[Run]) -> str:
    return "; ".join(
        f"{run.kind} attempt {run.attempt} in {run.pid}: {run.start / 1e9:.4f} to {run.last / 1e9:.4f}, "
        f"{run.ended or 'cut off'}"
        for run in runs
    )
