"""Where output goes: results to stdout, everything else to stderr, a line each."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from typing import TextIO

from ...models.errors import NfcliError
from ..text import cell_width, escape_line

CLEAR_LINE = "\r\x1b[K"
USUAL_COLUMNS = 80
"""Of a terminal that doesn't tell, as some over serial lines and in containers."""


class Console:
    """The two streams. `error_prefix` is put before errors: a script's `line 3: `.

    Characters that a stream's encoding lacks come out as escapes rather than as errors. `can_draw`: stderr is a
    terminal on which a line can be drawn and taken away again; any thread may do so.
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
        """Print a result at once.

        Raises:
            BrokenPipeError: nobody reads stdout any more.
            NfcliError: it can't be written for another reason.
        """
        try:
            self.out.write(f"{text}\n")
            self.out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise NfcliError(f"the result can't be written: {error.strerror}") from error

    def write_codes(self, text: str) -> None:
        """Write escape codes for the terminal, if there is one."""
        if self.out.isatty():
            self.out.write(text)
            self.out.flush()

    def note(self, text: str) -> None:
        """Tell something that is neither a result nor an error."""
        self._write_line(escape_line(text))

    def error(self, text: str) -> None:
        """Tell what went wrong."""
        self._write_line(self.error_prefix + escape_line(text))

    def draw(self, text: str) -> None:
        """Show a line until another one is drawn or told in its place; empty: take it away.

        Only where `can_draw`. It is cut to the terminal's width: a longer one could not be taken away.
        """
        with self._lock, contextlib.suppress(OSError):
            if text:
                columns = os.get_terminal_size(self.err.fileno()).columns or USUAL_COLUMNS
                self.err.write(CLEAR_LINE + _cut(escape_line(text), columns - 1))
            elif self._drawn:
                self.err.write(CLEAR_LINE)
            self._drawn = bool(text)
            self.err.flush()

    def _write_line(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # nobody reads stderr: there is nowhere left to say so
            self.err.write(f"{CLEAR_LINE if self._drawn else ''}{line}\n")
            self._drawn = False
            self.err.flush()


def _cut(text: str, width: int) -> str:
    """Return a text's beginning that takes no more than `width` cells."""
    text = text[:width]
    while text and cell_width(text) > width:
        text = text[:-1]
    return text
