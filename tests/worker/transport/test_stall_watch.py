"""The stall watch: how old messages may be that are read after a pause."""

from types import SimpleNamespace

import pytest

from nfcli.worker.transport.stall_watch import SETTLE_SECONDS, STALL_SECONDS, StallWatch

POLL_SECONDS = 1.0


@pytest.fixture
def now() -> SimpleNamespace:
    """Return a clock that the test moves."""
    return SimpleNamespace(seconds=100.0)


def test_messages_read_after_a_stall_may_have_waited_since_its_beginning(now: SimpleNamespace) -> None:
    """All of them, until none was left to read; ZeroMQ's own thread may need a moment to get them."""
    watch = StallWatch(POLL_SECONDS, lambda: now.seconds)
    watch.begin_round(has_messages=True)
    assert watch.waited_seconds() == 0
    now.seconds += 30
    watch.begin_round(has_messages=False)
    watch.begin_round(has_messages=True)
    assert watch.waited_seconds() == 30
    now.seconds += 0.5
    watch.begin_round(has_messages=True)
    assert watch.waited_seconds() == 30.5
    now.seconds += SETTLE_SECONDS
    watch.begin_round(has_messages=True)
    assert watch.waited_seconds() == 30.5 + SETTLE_SECONDS
    watch.begin_round(has_messages=False)
    watch.begin_round(has_messages=True)
    assert watch.waited_seconds() == 0


def test_a_wait_for_messages_is_no_stall(now: SimpleNamespace) -> None:
    """Nor is a pause on a busy machine."""
    watch = StallWatch(POLL_SECONDS, lambda: now.seconds)
    now.seconds += POLL_SECONDS + STALL_SECONDS
    watch.begin_round(has_messages=True)
    assert watch.waited_seconds() == 0
    now.seconds += POLL_SECONDS
    watch.begin_round(has_messages=True)
    assert watch.waited_seconds() == 0
