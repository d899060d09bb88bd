"""The output of a session: results on stdout, everything else on stderr, the progress of a command included."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from ...models.errors import NfcliError
from ..text import cell_width, escape_line

CLEAR_LINE = "\r\x1b[K"
DEFAULT_COLUMNS = 80
"""Width of a terminal that reports none, as some on serial lines and in containers do."""
DELAY_SECONDS = 0.5
_FRAMES = "|/-\\"
_FRAME_SECONDS = 0.1


class Console:
    """Standard output and standard error of a session.

    `error_prefix` is written before errors, for instance a script's `line 3: `. `can_draw`: stderr is a terminal on
    which a line can be drawn and erased. Characters that a stream's encoding lacks are escaped. Notes, errors and drawn
    lines may come from any thread. `delay_seconds` pass before a command's progress is drawn.
    """

    def __init__(self, out: TextIO, err: TextIO, *, delay_seconds: float = DELAY_SECONDS) -> None:
        self.out = out
        self.err = err
        self.error_prefix = ""
        self.can_draw = err.isatty() and os.environ.get("TERM") != "dumb"
        self._delay_seconds = delay_seconds
        self._is_running = False
        self._latest = ""
        self._drawn = False
        self._lock = threading.Lock()
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
                columns = os.get_terminal_size(self.err.fileno()).columns or DEFAULT_COLUMNS
                self.err.write(CLEAR_LINE + _cut(escape_line(text), columns - 1))
            elif self._drawn:
                self.err.write(CLEAR_LINE)
            self._drawn = bool(text)
            self.err.flush()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Draw the elapsed seconds and a worker's latest message while a command runs. Not reentrant."""
        self._latest, self._is_running = "", True
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

    def progress(self, worker: str, message: str) -> None:
        """Show a worker's message: in the drawn line, or as a note where none can be drawn.

        Between commands it is dropped: completion runs jobs too.
        """
        if self._is_running and self.can_draw:
            self._latest = f"  {worker}: {message}"
        elif self._is_running:
            self.note(f"{worker}: {message}")

    def _animate(self, done: threading.Event) -> None:
        started = time.monotonic()
        pause = self._delay_seconds
        frames = itertools.cycle(_FRAMES)
        try:
            while not done.wait(pause):
                self.draw(f"{next(frames)} {int(time.monotonic() - started)} s{self._latest}")
                pause = _FRAME_SECONDS
        finally:
            self.draw("")

    def _write_line(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # stderr is closed: there is no place left to report it
            self.err.write(f"{CLEAR_LINE if self._drawn else ''}{line}\n")
            self._drawn = False
            self.err.flush()


def _cut(text: str, width: int) -> str:
    """Return the longest beginning of a text that fits into `width` cells."""
    text = text[:width]
    while text and cell_width(text) > width:
        text = text[:-1]
    return text
