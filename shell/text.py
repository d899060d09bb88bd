"""Text for terminals and messages: control characters escaped, widths in cells."""

from __future__ import annotations

import re
from typing import Any

QUOTED_CHARACTERS = 64
_LATIN_1_MAX = 0xFF

# What a terminal acts on: C0 and C1 controls, line separators, what turns the direction of text, lone surrogates.
_UNSAFE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_IN_LINE = re.compile(f"[\t\n{_UNSAFE}]")
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def escape_line(value: Any) -> str:
    r"""Return a value as text on one line, in which control characters show as `\n`, `\x1b`, `\u202e`."""
    text = value if isinstance(value, str) else str(value)
    return text if text.isprintable() else _IN_LINE.sub(_escaped, text)


def escape_text(text: str) -> str:
    """Return text of several lines in which control characters other than newline and tab show as escapes."""
    return _IN_TEXT.sub(_escaped, text)


def quote_for_message(word: str) -> str:
    """Return a word of the user's for a message: in quotes, on one line, not longer than 64 characters."""
    short = word if len(word) <= QUOTED_CHARACTERS else f"{word[:QUOTED_CHARACTERS]}…"
    return f"'{escape_line(short)}'"


def cell_width(text: str) -> int:
    """Return how many cells of a terminal a printable text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth  # noqa: PLC0415  saves 10 ms in a shell that shows ASCII only

    width: int = wcswidth(text)
    return width if width >= 0 else len(text)


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _NAMED.get(character) or (f"\\x{code:02x}" if code <= _LATIN_1_MAX else f"\\u{code:04x}")
