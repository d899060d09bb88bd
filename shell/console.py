"""Where output goes: results to stdout, everything else to stderr, a line each."""

from __future__ import annotations

import contextlib
import io
from typing import TextIO

from ..models.errors import NfcliError
from .render import one_line


class Console:
    """The two streams. `place` is put before errors: a script's `line 3: `.

    Characters that a stream's encoding lacks come out as escapes rather than as errors.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.out = out
        self.err = err
        self.place = ""
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

    def raw(self, text: str) -> None:
        """Write escape codes for the terminal, if there is one."""
        if self.out.isatty():
            self.out.write(text)
            self.out.flush()

    def note(self, text: str) -> None:
        """Tell something that is neither a result nor an error."""
        self._tell(one_line(text))

    def error(self, text: str) -> None:
        """Tell what went wrong."""
        self._tell(self.place + one_line(text))

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads stderr: there is nowhere left to say so
            self.err.write(f"{line}\n")
            self.err.flush()
