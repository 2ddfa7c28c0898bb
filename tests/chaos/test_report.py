"""The report tells what failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.chaos.checker import Broken, Violation
from tests.chaos.config import Config
from tests.chaos.facts import Accepted
from tests.chaos.faults import Fault
from tests.chaos.load import Told
from tests.chaos.recovery import Recovery
from tests.chaos.report import Result, text


def a_result(**facts: Any) -> Result:
    """Return a run that went well, but for ``facts``."""
    good: dict[str, Any] = {
        "config": Config(Path("folder"), kills=2, tasks=1),
        "seconds": 10.0,
        "faults": {Fault.KILL_WORKER: 1, Fault.KILL_ALL: 1},
        "told": Told(accepted=[Accepted("t1", "slow", None, 1)], requests=1),
        "stored": 1,
        "statuses": {"success": 1},
        "restarts": 1,
        "exit_code": 0,
        "repeated_at_most_once": 0,
        "taken_over_alive": 0,
        "recoveries": [Recovery(3, 0.25, 1.5)],
        "violations": [],
    }
    return Result(**{**good, **facts})


def test_a_good_run_passes() -> None:
    """With its figures."""
    report = text(a_result())
    assert report.endswith("passed")
    for figure in ("2 of 2", "1 tasks in 1 requests", "p50 0.25 s", "p99 1.50 s"):
        assert figure in report


def test_each_reason_to_fail_is_told() -> None:
    """A violation, a wrong response, too few kills, too few tasks, a service that did not end well."""
    lost = [Violation(Broken.LOST, f"t{n}", "gone") for n in range(25)]
    assert a_result(violations=lost).problems() == ["25 × lost"]
    assert "and 5 more" in text(a_result(violations=lost))
    told = Told(accepted=[Accepted("t1", "slow", None, 1)], wrong=["500 oops"])
    assert a_result(told=told).problems() == ["1 wrong responses, the first: 500 oops"]
    assert a_result(faults={Fault.LOCK: 5}).problems() == ["0 kills of 2 in 10 s"]
    assert a_result(told=Told()).problems() == ["0 tasks of 1 in 10 s"]
    assert a_result(exit_code=3).problems() == ["the service ended with 3"]
    assert a_result(exit_code=None).problems() == ["the service did not end; server.log has its stacks"]
    assert text(a_result(exit_code=3)).endswith("FAILED: the service ended with 3")
