"""Secrets that are typed as `-` and read from elsewhere, so that neither history nor process list shows them."""

from __future__ import annotations

import getpass
import sys
from itertools import pairwise
from typing import Protocol

from ...models.commands.root import Root
from ...models.commands.schemas.documents import is_secret_name
from ...models.errors import UsageError
from ..syntax.lexer import ASK, PIPE, TERMINAL
from ..syntax.parser import secret_words

YES_OR_NO = "[y/N] "


class SecretSource(Protocol):
    """Where the secrets that are asked for with `-` come from, texts of several lines, and answers to questions."""

    def read(self, name: str) -> str:
        """Return the secret for a field; UsageError if none is available."""

    def discard(self) -> None:
        """Drop the secret that would be read next, because the command that asks for it is not run."""

    def read_text(self, name: str) -> str:
        """Return a text of several lines for a field; UsageError where nobody can type one."""

    def confirm(self, question: str) -> bool | None:
        """Return whether the user answers yes; None where nobody can be asked."""


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

    def read_text(self, name: str) -> str:  # noqa: ARG002  as in `SecretSource`
        """Raise UsageError: there is no prompt to type at."""
        raise no_prompt()

    def confirm(self, question: str) -> bool | None:
        """Ask at a terminal; return whether the answer is yes."""
        if not sys.stdin.isatty():
            return None
        sys.stderr.write(f"{question} {YES_OR_NO}")
        sys.stderr.flush()
        return is_yes(sys.stdin.readline())


def no_prompt() -> UsageError:
    """Return the error of a text that can only be typed at the prompt."""
    return UsageError(f"{TERMINAL} works at the prompt only: name a file with @FILE")


def is_yes(answer: str) -> bool:
    """Whether an answer is yes; anything else is no."""
    return answer.strip().lower() in {"y", "yes"}


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
    secret = secret_words(Root)
    asking = [name for name, value in pairwise(rough_words) if value == ASK]
    if any(is_secret_name(name) or any(word.startswith(name) for word in secret) for name in asking):
        source.discard()
