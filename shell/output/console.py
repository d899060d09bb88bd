"""The output of a session: results on stdout, everything else on stderr, the progress of a command included."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from typing import TextIO

from ...models.errors import NfcliError
from ...models.protocol.jobs import Event, is_automatic
from ..text import cell_width, escape_line, wrap_rows

CLEAR_LINE = "\r\x1b[K"
DEFAULT_COLUMNS = 80
"""Width of a terminal that reports none, as some on serial lines and in containers do."""
DELAY_SECONDS = 0.5
HELD_LINES = 1_000
_TIME_OF_DAY = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,3})?")
_QUESTION = "input_request"
_FRAMES = "-\\|/"  # as rich draws its spinner "line"
_FRAME_SECONDS = 0.1


class ShownEvents(Enum):
    """Which events of a command's job are shown."""

    NONE = auto()
    REPORTED = auto()
    """Those that the task reports; at a terminal only if the command takes `DELAY_SECONDS` or longer."""
    ALL = auto()
    """Those that workers send for every job as well, at once."""


class Console:
    """Standard output and standard error of a session.

    `error_prefix` is written before errors, for instance a script's `line 3: `. `can_draw`: stderr is a terminal on
    which a line can be drawn and erased. Characters that a stream's encoding lacks are escaped. Notes, errors and drawn
    lines may come from any thread. `delay_seconds` pass before a command's progress is drawn, and its events are shown.
    """

    def __init__(self, out: TextIO, err: TextIO, *, delay_seconds: float = DELAY_SECONDS) -> None:
        self.out = out
        self.err = err
        self.error_prefix = ""
        self.can_draw = err.isatty() and os.environ.get("TERM") != "dumb"
        self._delay_seconds = delay_seconds
        self._is_running = False
        self._shown_events = ShownEvents.REPORTED
        self._is_due = False
        self._is_paused = False
        self._held: deque[str] = deque(maxlen=HELD_LINES)
        self._drawn = False
        self._lock = threading.Lock()
        self._held_lock = threading.Lock()
        for stream in (out, err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

    def result(self, text: str) -> None:
        """Write a result and flush it.

        Raises:
            BrokenPipeError: stdout is closed at its other end.
            NfcliError: it cannot be written for another reason.
        """
        try:
            self.out.write(f"{text}\n")
            self.out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise NfcliError(f"cannot write the result: {error.strerror}") from error

    def help(self, text: str) -> None:
        """Write lines `word    description` as a result; at a terminal, wide ones are continued below.

        Raises:
            BrokenPipeError, NfcliError: as `result`.
        """
        self.result(wrap_rows(text, _columns(self.out)) if self.out.isatty() else text)

    def write_codes(self, text: str) -> None:
        """Write escape codes if stdout is a terminal."""
        if self.out.isatty():
            self.out.write(text)
            self.out.flush()

    def note(self, text: str) -> None:
        """Write a line that is neither a result nor an error."""
        self._write_line(escape_line(text))

    def error(self, text: str) -> None:
        """Write an error, on one line."""
        self._write_line(self.error_prefix + escape_line(text))

    def draw(self, text: str) -> None:
        """Draw a line until another one is drawn or written in its place; empty: erase it.

        Only where `can_draw`. It is cut to the terminal's width, because a longer one could not be erased.
        """
        with self._lock, contextlib.suppress(OSError):
            if text:
                self.err.write(CLEAR_LINE + _cut(escape_line(text), _columns(self.err) - 1))
            elif self._drawn:
                self.err.write(CLEAR_LINE)
            self._drawn = bool(text)
            self.err.flush()

    @contextlib.contextmanager
    def running(self, shown_events: ShownEvents = ShownEvents.REPORTED) -> Iterator[None]:
        """Draw the elapsed seconds and show the events of its job while a command runs. Not reentrant."""
        self._held.clear()
        self._shown_events = shown_events
        self._is_due = shown_events is ShownEvents.ALL or not self.can_draw
        self._is_running = True
        done = threading.Event()
        thread = threading.Thread(target=self._animate, args=(done,), name="progress", daemon=True)
        try:
            if self.can_draw:
                thread.start()
            yield
        finally:
            self._is_running = False
            done.set()  # should Ctrl-C come a second time, the thread still erases the line
            if thread.ident is not None:
                thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Draw nothing for the length of a `with` block, in which the user is asked something."""
        with self._held_lock:
            self._is_paused = True
        self._show_held()
        self.draw("")
        try:
            yield
        finally:
            self._is_paused = False

    def event(self, event: Event) -> None:
        """Show an event of a command's job as a line of its own; at a terminal once the command has taken some time.

        A question isn't shown again as an event.

        Between commands it is dropped: completion runs jobs too.
        """
        shown = self._shown_events
        if not self._is_running or shown is ShownEvents.NONE:
            return
        if shown is ShownEvents.REPORTED and (is_automatic(event) or event["event_type"] == _QUESTION):
            return
        with self._held_lock:
            if not self._is_due:
                self._held.append(event_line(event))
                return
        self.note(event_line(event))

    def _show_held(self) -> None:
        with self._held_lock:
            lines, self._is_due = list(self._held), True
            self._held.clear()
            for line in lines:
                self.note(line)

    def _animate(self, done: threading.Event) -> None:
        started = time.monotonic()
        pause = self._delay_seconds
        frames = itertools.cycle(_FRAMES)
        try:
            while not done.wait(pause):
                self._show_held()
                if not self._is_paused:
                    self.draw(f"{next(frames)} {int(time.monotonic() - started)} s")
                pause = _FRAME_SECONDS
        finally:
            self.draw("")

    def _write_line(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # stderr is closed: there is no place left to report it
            self.err.write(f"{CLEAR_LINE if self._drawn else ''}{line}\n")
            self._drawn = False
            self.err.flush()


def _columns(terminal: TextIO) -> int:
    try:
        return os.get_terminal_size(terminal.fileno()).columns or DEFAULT_COLUMNS
    except OSError:  # it has gone
        return DEFAULT_COLUMNS


def event_line(event: Event) -> str:
    """Return an event as a line: time, severity, worker, status, what it is about, and the message."""
    time_of_day = _TIME_OF_DAY.search(event["timestamp"])
    begins = time_of_day.group() if time_of_day else time.strftime("%H:%M:%S")
    about = ", ".join(event["resource"])
    parts = [f"{event['severity']:<8}", event["worker"], event["status"], about]
    return f"{begins} {' '.join(part for part in parts if part)}: {event['message']}"


def _cut(text: str, width: int) -> str:
    """Return the longest beginning of a text that fits into `width` cells."""
    text = text[:width]
    while text and cell_width(text) > width:
        text = text[:-1]
    return text
