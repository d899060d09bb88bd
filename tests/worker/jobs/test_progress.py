"""Lines of progress: made fit for one line, and never more than anybody can follow."""

from __future__ import annotations

import threading

import pytest

from nfcli.worker.jobs.progress import LINES_AT_ONCE, LINES_PER_SECOND, Progress


class Told:
    """What was sent of a job's progress, on a clock that the test sets."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 100.0
        self.progress = Progress(self.lines.append, lambda: self.now)

    def say(self, count: int) -> int:
        """Say many lines; return how many of them were sent."""
        before = len(self.lines)
        for number in range(count):
            self.progress.say(f"line {number}")
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
    told = Told()
    told.progress.say(message)
    assert told.lines == [line]


@pytest.mark.parametrize("message", ["", " \n ", "\x00"])
def test_a_message_of_nothing_is_not_sent(message: str) -> None:
    """It takes no room either."""
    told = Told()
    for _ in range(100):
        told.progress.say(message)
    assert (told.lines, told.progress.left_out) == ([], 0)
    assert told.say(100) == LINES_AT_ONCE


def test_lines_come_at_once_and_then_by_the_clock() -> None:
    """What was left out is counted; a pause makes room again, but no more than there was."""
    told = Told()
    assert (told.say(100), told.progress.left_out) == (LINES_AT_ONCE, 80)
    told.now += 1
    assert told.say(100) == LINES_PER_SECOND
    told.now += 3_600
    assert told.say(100) == LINES_AT_ONCE
    assert told.progress.left_out == 300 - len(told.lines)


def test_after_the_end_nothing_is_sent_nor_counted() -> None:
    """Whoever still talks does no harm."""
    told = Told()
    told.progress.end()
    assert (told.say(100), told.progress.left_out) == (0, 0)
    told.progress.end()


def test_the_end_waits_for_a_line_that_is_on_its_way() -> None:
    """The answer, which comes after it, is the last that a client hears of a job."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def emit(_line: str) -> None:
        begun.set()
        assert go_on.wait(10)

    def end() -> None:
        progress.end()
        ended.set()

    progress = Progress(emit)
    talking, ending = threading.Thread(target=progress.say, args=("x",)), threading.Thread(target=end)
    talking.start()
    assert begun.wait(10)
    ending.start()
    assert not ended.wait(0.05)
    go_on.set()
    assert ended.wait(10)
    talking.join(10)
    ending.join(10)
