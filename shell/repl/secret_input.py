"""Secrets that are typed as `-` and read from elsewhere, so that neither history nor process list shows them."""

from __future__ import annotations

import getpass
import sys
from itertools import pairwise
from typing import Protocol

from ...models.commands.root import Root
from ...models.errors import UsageError
from ..syntax.lexer import ASK, PIPE
from ..syntax.parser import secret_words


class SecretSource(Protocol):
    """Where the secrets that are asked for with `-` come from."""

    def read(self, name: str) -> str:
        """Return the secret for a field; UsageError if none is available."""

    def discard(self) -> None:
        """Drop the secret that would be read next, because the command that asks for it is not run."""


class StandardInput:
    """Secrets for a single command: from a hidden prompt at a terminal, else from the first line of stdin."""

    def read(self, name: str) -> str:
        """Return the secret; UsageError if stdin is empty or not UTF-8."""
        if sys.stdin.isatty():
            try:
                return getpass.getpass(f"{name}: ", stream=sys.stderr)
            except EOFError:
                raise UsageError(f"{name}: no value was entered") from None
        line = sys.stdin.buffer.readline()
        if not line:
            raise UsageError(f"{name}: - reads the value from stdin, which is empty")
        return decode_line(line.rstrip(b"\r\n"))

    def discard(self) -> None:
        """Leave stdin alone: no other command follows that could read the secret as its words."""


def decode_line(line: bytes) -> str:
    """Return a line of a script or of stdin as text.

    Raises:
        UsageError: the line is not UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {error.start + 1} is not UTF-8: save the text as UTF-8") from None


def discard_secret(line: str, source: SecretSource) -> None:
    """Drop the secret that a wrong line asks for: a script would run it as its next command and print it."""
    rough_words = line.replace(PIPE, f" {PIPE} ").split()
    if any(name in secret_words(Root) and value == ASK for name, value in pairwise(rough_words)):
        source.discard()
