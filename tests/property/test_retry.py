"""The pauses between attempts stay within their bounds, whatever the numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastapi_taskflow.task.retry import MAX_PAUSE, RetryPolicy

SECONDS = st.floats(0, 1e12, allow_nan=False)
PART = st.floats(0, 1)
CHANCE = st.floats(0, 1, exclude_max=True)


@given(delay=SECONDS, backoff=st.floats(0.01, 1e6), most=st.none() | SECONDS, jitter=PART, retry=st.integers(1, 10_000))
def test_a_pause_is_bounded(delay: float, backoff: float, most: float | None, jitter: float, retry: int) -> None:
    """Never negative, never beyond ``max_delay``, and never without end."""
    policy = RetryPolicy(delay=delay, backoff=backoff, max_delay=most, jitter=jitter)
    for chance in (0.0, 0.5, 0.999_999):
        pause = policy.pause_before(retry, chance=lambda drawn=chance: drawn)  # type: ignore[misc]
        assert 0 <= pause <= (MAX_PAUSE if most is None else most)


@given(delay=st.floats(0.001, 1e6), backoff=st.floats(1, 10), jitter=PART, retry=st.integers(1, 20), drawn=CHANCE)
def test_jitter_takes_away_at_most_its_part(
    delay: float, backoff: float, jitter: float, retry: int, drawn: float
) -> None:
    """The pause lies between the part that is certain and the whole."""
    whole = RetryPolicy(delay=delay, backoff=backoff).pause_before(retry, chance=float)
    pause = RetryPolicy(delay=delay, backoff=backoff, jitter=jitter).pause_before(retry, chance=lambda: drawn)
    assert whole * (1 - jitter) * 0.999_999 <= pause <= whole


@given(delay=st.floats(0, 1e3), backoff=st.floats(1, 10), most=st.floats(0, 1e6))
def test_pauses_do_not_shrink(delay: float, backoff: float, most: float) -> None:
    """A later retry never waits less than an earlier one, where the factor is 1 or more."""
    policy = RetryPolicy(delay=delay, backoff=backoff, max_delay=most)
    pauses = [policy.pause_before(retry, chance=float) for retry in range(1, 30)]
    assert pauses == sorted(pauses)
