"""Plans of faults are what was asked for."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.faults import KILLS, Fault, plan


@pytest.mark.parametrize("kills", [2, 5, 100])
def test_a_plan_has_the_kills_and_each_other_fault(kills: int) -> None:
    """However short it is."""
    faults = Counter(step.fault for step in plan(kills, seed=3, lease=2.0))
    assert sum(faults[fault] for fault in KILLS) == kills
    assert set(faults) == set(Fault)


def test_a_seed_gives_the_same_plan_again() -> None:
    """And another one another plan."""
    assert plan(20, seed=1, lease=3.0) == plan(20, seed=1, lease=3.0)
    assert plan(20, seed=1, lease=3.0) != plan(20, seed=2, lease=3.0)


def test_a_freeze_is_shorter_or_longer_than_the_lease_as_its_name_says() -> None:
    """So both sides of it are tried."""
    for step in plan(100, seed=1, lease=3.0):
        if step.fault is Fault.FREEZE:
            assert 0 < step.lasts < 3.0
        if step.fault is Fault.FREEZE_PAST_LEASE:
            assert step.lasts > 6.0
