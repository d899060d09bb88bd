"""Counting what a limit stopped, with one log line a minute."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from nfcli.worker.limit_counter import LimitCounter

log = logging.getLogger(__name__)


def test_a_minute_has_one_line_and_the_next_line_has_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    """Every time is counted."""
    clock = SimpleNamespace(now=1000.0)
    counter = LimitCounter(log, monotonic=lambda: clock.now)
    for step in (0.0, 0.0, 59.9, 0.1, 60.0):
        clock.now += step
        counter.record("%s closed", clock.now)
    assert counter.count == 5
    assert caplog.messages == [
        "1000.0 closed",
        "1060.0 closed (and 2 times since the last such line)",
        "1120.0 closed",
    ]


def test_level_of_the_lines_can_be_set(caplog: pytest.LogCaptureFixture) -> None:
    """What is usual is no warning."""
    LimitCounter(log, level=logging.DEBUG).record("closed")
    assert caplog.messages == []
