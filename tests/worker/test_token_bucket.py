"""The token bucket, on a clock that the test sets."""

from __future__ import annotations

from types import SimpleNamespace

from nfcli.worker.token_bucket import TokenBucket


def taken(bucket: TokenBucket, times: int) -> int:
    """Return how many of so many attempts succeed."""
    return sum(bucket.take() for _ in range(times))


def test_a_full_bucket_gives_its_capacity_at_once_and_then_by_the_clock() -> None:
    """A part of a token counts with the next ones; a long pause fills the bucket, and no more than that."""
    clock = SimpleNamespace(now=100.0)
    bucket = TokenBucket(3, 2.0, lambda: clock.now)
    assert taken(bucket, 10) == 3
    clock.now += 1.5
    assert taken(bucket, 10) == 0
    clock.now += 0.5
    assert taken(bucket, 10) == 1
    clock.now += 3_600
    assert taken(bucket, 10) == 3


def test_a_clock_that_stands_still_gives_nothing() -> None:
    """Only time fills the bucket, not attempts."""
    bucket = TokenBucket(1, 0.1, lambda: 5.0)
    assert taken(bucket, 1_000) == 1
