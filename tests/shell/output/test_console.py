"""The progress of jobs on stderr: plain lines, or a line at a terminal that is erased at the end."""

from __future__ import annotations

import io
import os
import re
import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nfcli.models.protocol.jobs import Event, read_event
from nfcli.shell.output.console import CLEAR_LINE, Console, ShownEvents, event_line

WAIT_SECONDS = 10.0


def event(message: str, **changed: Any) -> Event:
    """Return an event of a worker `w1`."""
    time_stamp = "22-Nov-2026 04:04:00.480"
    data = {"worker": "w1", "event_type": "progress", "message": message, "status": "running", "timestamp": time_stamp}
    return read_event(data | changed)


class Screen:
    """A pseudo-terminal; `text` is all that was written to it."""

    def __init__(self, *, delay_seconds: float = 0.0) -> None:
        self.reader, writer = os.openpty()
        self.stream = os.fdopen(writer, "w", encoding="utf-8")
        self.console = Console(io.StringIO(), self.stream, delay_seconds=delay_seconds)
        self.text = ""

    def read(self) -> str:
        """Return all that was written so far."""
        while select.select([self.reader], [], [], 0)[0]:
            self.text += os.read(self.reader, 65_536).decode()
        return self.text

    def wait_for(self, part: str) -> None:
        """Wait until something was written."""
        deadline = time.monotonic() + WAIT_SECONDS
        while part not in self.read():
            assert select.select([self.reader], [], [], max(0.0, deadline - time.monotonic()))[0], self.text

    def left(self) -> str:
        """Return what is visible in the end: of each line what was written since it was last erased."""
        lines = self.read().replace("\r\n", "\n").split("\n")
        return "\n".join(line.split(CLEAR_LINE)[-1] for line in lines)


@pytest.fixture
def make_screen() -> Iterator[Callable[..., Screen]]:
    """Open terminals; the end of the test closes them."""
    screens: list[Screen] = []

    def make(**options: float) -> Screen:
        screens.append(Screen(**options))
        return screens[-1]

    yield make
    for screen in screens:
        screen.stream.close()
        os.close(screen.reader)


@pytest.fixture
def screen(make_screen: Callable[..., Screen]) -> Screen:
    """Open a terminal at which the line is drawn without a delay."""
    return make_screen()


def test_without_a_terminal_each_message_is_a_line() -> None:
    """Control characters are escaped: messages come from other programs."""
    err = io.StringIO()
    console = Console(io.StringIO(), err)
    with console.running():
        console.event(event("half\nway\x1b[2J"))
        console.event(event("done", worker="w\x07", severity="WARNING", status="", resource=["sw1", "sw2"]))
        console.event(event("completed"))
        console.event(event("Go on?", event_type="input_request"))
    console.event(event("not now"))
    assert err.getvalue() == (
        "04:04:00.480 INFO     w1 running: half\\nway\\x1b[2J\n04:04:00.480 WARNING  w\\x07 sw1, sw2: done\n"
    )


def test_an_event_without_a_time_gets_that_of_its_arrival() -> None:
    """Other programs may send none, or one in a form of their own."""
    early, late = (event_line(event("half way", timestamp=text)) for text in ("22-Nov-2026 04:04:00", "yesterday"))
    assert early == "04:04:00 INFO     w1 running: half way"
    assert re.fullmatch(r"[0-9]{2}:[0-9]{2}:[0-9]{2} INFO     w1 running: half way", late)


def test_all_events_are_shown_on_request_and_none_when_quiet(make_screen: Callable[..., Screen]) -> None:
    """All of them at once, also at a terminal and for a quick command."""
    screen = make_screen(delay_seconds=60.0)
    for shown in (ShownEvents.NONE, ShownEvents.ALL):
        with screen.console.running(shown):
            screen.console.event(event("starting"))
            screen.console.event(event("half way"))
    assert screen.left() == "04:04:00.480 INFO     w1 running: starting\n04:04:00.480 INFO     w1 running: half way\n"


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_terminal_without_escape_codes_gets_plain_lines(
    make_screen: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    """Such a terminal has `TERM=dumb`."""
    monkeypatch.setenv("TERM", term)
    assert make_screen().console.can_draw == (term == "xterm")


def test_the_line_shows_seconds_and_is_erased_and_events_stay(screen: Screen) -> None:
    """It is animated while the job runs, below the events."""
    with screen.console.running():
        screen.wait_for("| 0 s")
        screen.wait_for("/ 0 s")
        screen.console.event(event("half\x1b[2J"))
        screen.wait_for(": half\\x1b[2J\r\n")
    line = "04:04:00.480 INFO     w1 running: half\\x1b[2J\n"
    assert (screen.left(), "\x1b[2J" in screen.text) == (line, False)


def test_a_quick_command_draws_nothing(make_screen: Callable[..., Screen]) -> None:
    """The line waits for its delay."""
    screen = make_screen(delay_seconds=60.0)
    with screen.console.running():
        screen.console.event(event("half way"))
    assert screen.read() == ""


def test_events_of_the_first_moments_are_shown_once_the_command_takes_longer(
    make_screen: Callable[..., Screen],
) -> None:
    """In order, before the line is drawn."""
    screen = make_screen(delay_seconds=0.05)
    with screen.console.running():
        screen.console.event(event("first"))
        screen.console.event(event("second"))
        screen.wait_for("| 0 s")
    assert [line.rpartition(": ")[2] for line in screen.left().splitlines()] == ["first", "second"]


def test_notes_and_errors_are_on_lines_of_their_own(screen: Screen) -> None:
    """The line is erased for them, and drawn again below."""
    with screen.console.running():
        screen.wait_for("| 0 s")
        screen.console.note("the broker is back")
        screen.wait_for(f"{CLEAR_LINE}the broker is back\r\n")
        screen.wait_for(f"back\r\n{CLEAR_LINE}")
    assert screen.left() == "the broker is back\n"


def test_an_interrupted_job_leaves_the_terminal_clean(screen: Screen) -> None:
    """Ctrl-C erases the line as well."""

    def interrupted() -> None:
        with screen.console.running():
            screen.wait_for("| 0 s")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert screen.left() == ""


@pytest.mark.parametrize(("columns", "shown"), [(0, 79), (1, 0), (2, 1)])
def test_the_line_fits_a_terminal_of_any_width(
    screen: Screen, columns: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some terminals report no columns at all."""
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 0)))
    screen.console.draw("x" * 200)
    screen.wait_for(CLEAR_LINE + "x" * shown)
    assert "x" * (shown + 1) not in screen.text


def test_a_line_longer_than_the_terminal_is_cut(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second line on the screen could not be erased; wide characters take two cells."""
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((20, 5)))
    screen.console.draw("界" * 30)
    screen.wait_for("界" * 9)
    screen.console.draw("x" * 30)
    screen.wait_for("x" * 19)
    assert ("界" * 10 in screen.text, "x" * 20 in screen.text) == (False, False)


def test_an_event_of_one_command_is_not_shown_at_the_next(make_screen: Callable[..., Screen]) -> None:
    """What a quick command held back is dropped with its end."""
    screen = make_screen(delay_seconds=0.05)
    with screen.console.running():
        screen.console.event(event("first"))
    with screen.console.running():
        screen.wait_for("| 0 s")
    assert "first" not in screen.read()
