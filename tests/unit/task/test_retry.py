"""When a failed attempt is followed by another one."""

from __future__ import annotations

import pytest

from fastapi_taskflow.task.retry import MAX_PAUSE, RetryPolicy


def test_the_pause_grows_and_never_overflows() -> None:
    """Delay, then times the factor; absurd numbers end at a bound."""
    policy = RetryPolicy(delay=0.5, backoff=2.0)
    assert [policy.pause_before(n, chance=float) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert RetryPolicy(delay=1.0, backoff=10.0).pause_before(10_000, chance=float) == MAX_PAUSE
    assert RetryPolicy(delay=1.0, backoff=10.0, max_delay=60.0).pause_before(10_000, chance=float) == 60.0


@pytest.mark.parametrize(("drawn", "pause"), [(0.0, 8.0), (0.5, 7.0), (0.999, 6.002)])
def test_jitter_only_shortens_a_pause(drawn: float, pause: float) -> None:
    """By at most its part of it."""
    policy = RetryPolicy(delay=4.0, backoff=2.0, jitter=0.25)
    assert policy.pause_before(2, chance=lambda: drawn) == pytest.approx(pause)


def test_which_errors_are_retried() -> None:
    """All, or those that are named; those to give up on never are."""
    assert RetryPolicy().allows(ValueError())
    named = RetryPolicy(retry_on=(OSError,), give_up_on=(FileNotFoundError,))
    assert named.allows(ConnectionError())
    assert not named.allows(ValueError())
    assert not named.allows(FileNotFoundError())
