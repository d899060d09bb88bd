"""Write output: results to stdout, everything else to stderr, one line each."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from typing import TextIO

from ...models.errors import NfcliError
from ..text import cell_width, escape_line

CLEAR_LINE = "\r\x1b[K"
DEFAULT_COLUMNS = 80
"""Width of a terminal that reports none, as some on serial lines and in containers do."""


class Console:
    """Standard output and standard error of a session.

    `error_prefix` is written before errors, for instance a script's `line 3: `. `can_draw`: stderr is a terminal on
    which a line can be drawn and erased. Characters that a stream's encoding lacks are escaped. Notes, errors and drawn
    lines may come from any thread.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.out = out
        self.err = err
        self.error_prefix = ""
        self.can_draw = err.isatty() and os.environ.get("TERM") != "dumb"
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
