"""Progress lines: made fit for one line, and limited in rate."""

from __future__ import annotations

import threading

import pytest

from nfcli.worker.jobs.channels.base import TaskEvent
from nfcli.worker.jobs.channels.progress import LINES_AT_ONCE, SECONDS_PER_LINE, JobProgress


class Sent:
    """The progress lines that a job has sent, on a clock that the test sets."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 100.0
        self.progress = JobProgress(lambda event: self.lines.append(event.message), lambda: self.now)

    def send(self, count: int) -> int:
        """Send many lines; return how many of them were sent."""
        before = len(self.lines)
        for number in range(count):
            self.progress.send(TaskEvent(f"line {number}"))
        return len(self.lines) - before


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("3 of 7 done", "3 of 7 done"),
        (" two\n lines\t and\r\nmore ", "two lines and more"),
        ("\x1b[31mred\x07 \u202eeht \ud800", "[31mred eht"),
        ("ä" * 1_001, "ä" * 1_000),
        ("x" * 10_000_000, "x" * 1_000),
        (7, "7"),
    ],
)
def test_a_message_is_sent_as_one_line(message: str, line: str) -> None:
    """Of printable characters, at most a thousand of them."""
    sent = Sent()
    sent.progress.send(TaskEvent(message))
    assert sent.lines == [line]


@pytest.mark.parametrize("message", ["", " \n ", "\x00"])
def test_a_message_of_nothing_is_not_sent(message: str) -> None:
    """It doesn't count towards the limit either."""
    sent = Sent()
    for _ in range(100):
        sent.progress.send(TaskEvent(message))
    assert (sent.lines, sent.progress.dropped) == ([], 0)
    assert sent.send(100) == LINES_AT_ONCE


def test_lines_come_at_once_and_then_by_the_clock() -> None:
    """Dropped lines are counted; after a long pause the limit is what it was at first."""
    sent = Sent()
    assert (sent.send(100), sent.progress.dropped) == (LINES_AT_ONCE, 80)
    sent.now += 1
    assert sent.send(100) == round(1 / SECONDS_PER_LINE)
    sent.now += 3_600
    assert sent.send(100) == LINES_AT_ONCE
    assert sent.progress.dropped == 300 - len(sent.lines)


def test_nothing_is_sent_or_counted_after_the_end() -> None:
    """A task's thread may outlive its job."""
    sent = Sent()
    sent.progress.close()
    assert (sent.send(100), sent.progress.dropped) == (0, 0)
    sent.progress.close()


def test_close_waits_for_a_line_that_is_being_sent() -> None:
    """The result, which is sent after it, must be the last message of a job."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def emit(_event: TaskEvent) -> None:
        begun.set()
        assert go_on.wait(10)

    def end() -> None:
        progress.close()
        ended.set()

    progress = JobProgress(emit)
    sending, closing = threading.Thread(target=progress.send, args=(TaskEvent("x"),)), threading.Thread(target=end)
    sending.start()
    assert begun.wait(10)
    closing.start()
    assert not ended.wait(0.05)
    go_on.set()
    assert ended.wait(10)
    sending.join(10)
    closing.join(10)
