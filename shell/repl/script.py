"""Commands that nobody types at a prompt: a script on stdin, or the words of one command line."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

from ...models.errors import EXIT_OK, UsageError
from .session import Session

EXIT_INTERRUPTED = 130
_BOM = b"\xef\xbb\xbf"


def run_script(session: Session, stream: BinaryIO, *, stop_on_error: bool = False) -> int:
    """Run each line of a stream as it arrives, until it ends or a command leaves the shell.

    Lines are UTF-8, with LF or CRLF; the last may lack its end, the first may begin with a byte order mark. Errors say
    which line they belong to.

    Returns:
        0 if all commands succeeded, else the exit status of the first that failed; 130 after Ctrl-C. A reader of stdout
        that leaves early, like `head`, ends the script without an error.
    """
    lines = ScriptLines(stream)
    session.secrets = lines
    first_failure = EXIT_OK
    try:
        while not session.has_ended and not (first_failure and stop_on_error):
            line = lines.next()
            if line is None:
                break
            session.console.error_prefix = f"line {lines.number}: "
            status = _run_line(session, line)
            first_failure = first_failure or status
    except BrokenPipeError:
        abandon_stdout()
    except KeyboardInterrupt:
        session.console.error("interrupted")
        return EXIT_INTERRUPTED
    finally:
        session.console.error_prefix = ""
    return first_failure


def run_words(session: Session, words: Sequence[str]) -> int:
    """Run the one command whose words a command line gives.

    Returns:
        Its exit status (`models/errors.py`); 130 after Ctrl-C.
    """
    session.secrets = StandardInput()
    try:
        return session.run_words(words)
    except BrokenPipeError:
        abandon_stdout()
        return EXIT_OK
    except KeyboardInterrupt:
        session.console.error("interrupted")
        return EXIT_INTERRUPTED


class ScriptLines:
    """The lines of a script, for its commands and for the secrets they ask for. `number` is the last line's."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0

    def next(self) -> bytes | None:
        """Return the next line without its end; None behind the last."""
        line = self._stream.readline()
        if not line:
            return None
        self.number += 1
        return line.removeprefix(_BOM if self.number == 1 else b"").rstrip(b"\r\n")

    def read(self, name: str) -> str:
        """Return the next line as a secret.

        Raises:
            UsageError: there is none, or it isn't UTF-8.
        """
        line = self.next()
        if line is None:
            raise UsageError(f"{name}: - takes the value from the next line, but there is none")
        return _decoded(line)

    def skip(self) -> None:
        """Drop the next line."""
        self.next()


class StandardInput:
    """Secrets for a single command: asked for in a terminal without showing them, else the first line of stdin."""

    def read(self, name: str) -> str:
        """Return the secret.

        Raises:
            UsageError: stdin holds nothing.
        """
        if sys.stdin is not None and sys.stdin.isatty():
            try:
                return getpass.getpass(f"{name}: ", stream=sys.stderr)
            except EOFError:
                raise UsageError(f"{name}: nothing was typed") from None
        line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
        if not line:
            raise UsageError(f"{name}: - takes the value from stdin, which holds nothing")
        return _decoded(line.rstrip(b"\r\n"))

    def skip(self) -> None:
        """Leave stdin alone: there is no next command that could take the secret for its words."""


def _run_line(session: Session, line: bytes) -> int:
    try:
        text = _decoded(line)
    except UsageError as error:
        session.console.error(str(error))
        return error.exit_status
    return session.run_line(text)


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {error.start + 1} is not UTF-8: save the text as UTF-8") from None


def abandon_stdout() -> None:
    """Point stdout nowhere, as Python's documentation of SIGPIPE advises: flushing it at exit must not fail again."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(descriptor, sys.stdout.fileno())
    finally:
        os.close(descriptor)
