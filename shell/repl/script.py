"""Run commands without a prompt: a script from stdin, or the words of one command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

from ...models.errors import EXIT_OK, UsageError
from ..text import interrupt_line
from .secret_input import decode_line, no_prompt
from .session import Session

EXIT_INTERRUPTED = 130  # 128 + SIGINT, by the convention of shells
_BOM = b"\xef\xbb\xbf"


def run_script(session: Session, stream: BinaryIO, *, stop_on_error: bool = False) -> int:
    """Run each line of a stream as it arrives, until the stream ends or a command leaves the shell.

    Lines are UTF-8, with LF or CRLF; the last may lack its end, the first may begin with a byte order mark. Errors name
    the number of their line.

    Returns:
        0 if all commands succeeded, else the exit status of the first that failed; 130 after Ctrl-C. A reader of stdout
        that exits early, like `head`, ends the script without an error.
    """
    lines = ScriptLines(stream)
    session.secrets = lines
    first_failure = EXIT_OK
    try:
        while not session.navigator.has_left and not (first_failure and stop_on_error):
            line = lines.next()
            if line is None:
                break
            session.console.error_prefix = f"line {lines.number}: "
            status = _run_line(session, line)
            first_failure = first_failure or status
    except BrokenPipeError:
        abandon_stdout()
    except KeyboardInterrupt as interrupt:
        session.console.error(interrupt_line("interrupted", interrupt))
        return EXIT_INTERRUPTED
    finally:
        session.console.error_prefix = ""
    return first_failure


def run_words(session: Session, words: Sequence[str]) -> int:
    """Run the one command whose words a command line gives.

    Returns:
        Its exit status (`models/errors.py`); 130 after Ctrl-C.
    """
    try:
        return session.run_words(words)
    except BrokenPipeError:
        abandon_stdout()
        return EXIT_OK
    except KeyboardInterrupt as interrupt:
        session.console.error(interrupt_line("interrupted", interrupt))
        return EXIT_INTERRUPTED


class ScriptLines:
    """The lines of a script: commands, and the secrets that they ask for. `number` is that of the latest line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0

    def next(self) -> bytes | None:
        """Return the next line without its end; None after the last."""
        line = self._stream.readline()
        if not line:
            return None
        self.number += 1
        return line.removeprefix(_BOM if self.number == 1 else b"").rstrip(b"\r\n")

    def read(self, name: str) -> str:
        """Return the next line as a secret; UsageError if none is left or it is not UTF-8."""
        line = self.next()
        if line is None:
            raise UsageError(f"{name}: - reads the value from the next line, but the script ends here")
        return decode_line(line)

    def discard(self) -> None:
        """Drop the next line."""
        self.next()

    def read_text(self, name: str) -> str:  # noqa: ARG002  as in `SecretSource`
        """Raise UsageError: a script has no prompt to type at."""
        raise no_prompt()

    def confirm(self, question: str) -> bool | None:  # noqa: ARG002  as in `SecretSource`
        """Return None: a script answers no questions."""
        return None


def _run_line(session: Session, line: bytes) -> int:
    try:
        text = decode_line(line)
    except UsageError as error:
        session.console.error(str(error))
        return error.exit_status
    return session.run_line(text)


def abandon_stdout() -> None:
    """Redirect stdout to the null device, as Python's documentation of SIGPIPE advises, so its flush can't fail."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(descriptor, sys.stdout.fileno())
    finally:
        os.close(descriptor)
