"""What a run found, and the text that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.chaos.checker import Broken, counted
from tests.chaos.faults import KILLS, Fault
from tests.chaos.recovery import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.chaos.checker import Violation
    from tests.chaos.config import Config
    from tests.chaos.load import Told
    from tests.chaos.recovery import Recovery

SHOWN: Final = 20
ENDS_OF_SIGTERM: Final = (0, -15)
"""uvicorn ends by the signal again when it has cleaned up; with several workers by 0."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Attributes:
        config: What it was told to do.
        seconds: How long it was under load.
        faults: How often each fault was done.
        told: What the client was told.
        stored: Tasks in the store at the end.
        statuses: How many of them in each status.
        restarts: How often the whole service was started again.
        exit_code: How it ended at last, by SIGTERM; None if it did not.
        repeated_at_most_once: Tasks without ``requeue_on_interrupt`` that began twice, before the store knew.
        taken_over_alive: Runs that others took over from processes that were stopped for longer than the lease.
        recoveries: Of the kills that left tasks behind.
        violations: What contradicts the promises.
    """

    config: Config
    seconds: float
    faults: Mapping[Fault, int]
    told: Told
    stored: int
    statuses: Mapping[str, int]
    restarts: int
    exit_code: int | None
    repeated_at_most_once: int
    taken_over_alive: int
    recoveries: Sequence[Recovery]
    violations: Sequence[Violation]

    @property
    def kills(self) -> int:
        """How many SIGKILLs there were."""
        return sum(self.faults.get(fault, 0) for fault in KILLS)

    def problems(self) -> list[str]:
        """Return why the run has failed, nothing if it has not."""
        found = [f"{count} × {broken}" for broken, count in counted(self.violations).items() if count]
        if self.told.wrong:
            found.append(f"{len(self.told.wrong)} wrong responses, the first: {self.told.wrong[0]}")
        if self.kills < self.config.kills:
            found.append(f"{self.kills} kills of {self.config.kills} in {self.seconds:.0f} s")
        if self.told.tasks < max(1, self.config.tasks):
            found.append(f"{self.told.tasks} tasks of {self.config.tasks} in {self.seconds:.0f} s")
        if self.exit_code is None:
            found.append("the service did not end; server.log has its stacks")
        elif self.exit_code not in ENDS_OF_SIGTERM:
            found.append(f"the service ended with {self.exit_code}")
        return found


def text(result: Result) -> str:
    """Return the report."""
    config, told = result.config, result.told
    counts = counted(result.violations)
    accepted = told.tasks
    restart = [recovery.after_restart for recovery in result.recoveries]
    kill = [recovery.after_kill for recovery in result.recoveries]
    orphans = sum(recovery.orphans for recovery in result.recoveries)
    statuses = ", ".join(f"{number} {status}" for status, number in sorted(result.statuses.items()))
    unknown = f"{told.unknown} outcomes unknown, {told.keys_again} requests with a key sent again"
    others = {broken: number for broken, number in counts.items() if broken not in {Broken.LOST, Broken.OVERLAP}}
    rows = [
        ("run", f"{config.db}, {config.workers} worker(s), seed {config.seed}, {result.seconds:.0f} s under load"),
        ("kills", f"{result.kills} of {config.kills}"),
        ("faults", ", ".join(f"{result.faults.get(fault, 0)} × {fault}" for fault in Fault)),
        ("restarts", f"{result.restarts} of the whole service, by the supervisor"),
        ("accepted", f"{accepted} tasks in {told.requests} requests, {accepted / result.seconds:.0f} tasks/s"),
        ("not accepted", f"{told.refused} connections refused, {told.unavailable} × 503, {unknown}"),
        ("stored", f"{result.stored}: {statuses}"),
        ("lost", str(counts[Broken.LOST])),
        ("overlaps", str(counts[Broken.OVERLAP])),
        *((broken.value, str(number)) for broken, number in others.items()),
        ("began twice", f"{result.repeated_at_most_once} at-most-once tasks, hit before the store knew that they ran"),
        ("taken over", f"{result.taken_over_alive} runs of stopped processes that went on later"),
        ("orphans", f"{orphans} tasks, left by {len(result.recoveries)} kills"),
        ("recovery", f"{_spread(restart)} from the first answer after a restart"),
        ("", f"{_spread(kill)} from the kill"),
    ]
    lines = [f"{name:<16} {value}" for name, value in rows]
    lines += [f"  {each.broken} {each.task_id}: {each.detail}" for each in result.violations[:SHOWN]]
    if len(result.violations) > SHOWN:
        lines.append(f"  and {len(result.violations) - SHOWN} more")
    problems = result.problems()
    lines.append(f"FAILED: {'; '.join(problems)}" if problems else "passed")
    return "\n".join(lines)


def _spread(seconds: Sequence[float]) -> str:
    middle, most = percentile(seconds, 50), max(seconds, default=0.0)
    return f"p50 {middle:.2f} s, p99 {percentile(seconds, 99):.2f} s, most {most:.2f} s"
