"""Secrets that are typed as `-` and read from elsewhere, so that neither history nor process list shows them."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from ...models.commands.root import Root
from ...models.errors import UsageError
from ..syntax.lexer import ASK, PIPE
from ..syntax.parser import Scope, secret_words


class SecretSource(Protocol):
    """Where the secrets that are asked for with `-` come from."""

    def read(self, name: str) -> str:
        """Return the secret for a field.

        Raises:
            UsageError: none is available.
        """

    def discard(self) -> None:
        """Drop the secret that would be read next, because the command that asks for it is not run."""


class StandardInput:
    """Secrets for a single command: from a hidden prompt at a terminal, else from the first line of stdin."""

    def read(self, name: str) -> str:
        """Return the secret.

        Raises:
            UsageError: stdin is empty or not UTF-8.
        """
        if sys.stdin is not None and sys.stdin.isatty():
            try:
                return getpass.getpass(f"{name}: ", stream=sys.stderr)
            except EOFError:
                raise UsageError(f"{name}: no value was entered") from None
        line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
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


def read_secrets(command: Scope, asked: Sequence[str], source: SecretSource | None) -> None:
    """Read the secrets that a parsed command asks for, `Parser.asked`, into its values.

    Raises:
        UsageError: no secret is available, or there is no source.
    """
    for key in asked:
        if source is None:
            raise UsageError(f"{command.name}: {key}: - asks for the value, but this session cannot ask")
        command.values[key] = source.read(key)


def discard_secret(line: str, source: SecretSource | None) -> None:
    """Drop the secret that a wrong line asks for: a script would run it as its next command and print it."""
    rough_words = line.replace(PIPE, f" {PIPE} ").split()
    asks = any(name in secret_words(Root) and value == ASK for name, value in pairwise(rough_words))
    if asks and source is not None:
        source.discard()
