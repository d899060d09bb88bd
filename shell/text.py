"""Text for terminals and messages: escape control characters, measure widths in cells."""

from __future__ import annotations

import re
from typing import Any

QUOTED_CHARACTERS = 64
_MAX_LATIN_1 = 0xFF

# Characters that a terminal interprets: C0 and C1 controls, line separators, direction marks; and lone surrogates.
_UNSAFE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
UNSAFE_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_IN_LINE = re.compile(f"[\t\n{_UNSAFE}]")
# The word before a description, and the gap of two blanks or more behind it.
_LEAD = re.compile(r" *(?:\S+(?: \S+)*)? {2,}")
_NARROW_INDENT = 4
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def escape_line(value: Any) -> str:
    r"""Return a value as text on one line, control characters escaped as `\n`, `\x1b`, `\u202e`."""
    text = value if isinstance(value, str) else str(value)
    return text if text.isprintable() else _IN_LINE.sub(_escape, text)


def interrupt_line(word: str, interrupt: KeyboardInterrupt) -> str:
    """Return the line about a Ctrl-C: a word, and where the outcome of the job that it ended is unknown."""
    return f"{word}: {escape_line(interrupt)}" if str(interrupt) else word


def escape_text(text: str) -> str:
    """Return text with control characters other than newline and tab escaped."""
    return UNSAFE_IN_TEXT.sub(_escape, text)


def quote_for_message(word: str) -> str:
    """Return a word that the user typed for a message: in quotes, on one line, cut to 64 characters."""
    short = word if len(word) <= QUOTED_CHARACTERS else f"{word[:QUOTED_CHARACTERS]}…"
    return f"'{escape_line(short)}'"


def cell_width(text: str) -> int:
    """Return how many terminal cells a printable text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth  # noqa: PLC0415  saves 10 ms in a shell that shows ASCII only

    width: int = wcswidth(text)
    return width if width >= 0 else len(text)


def wrap_rows(text: str, columns: int) -> str:
    """Return lines `word    description` with those that are wider than `columns` cells continued below.

    They are divided at blanks, and continued where the description begins, or at four cells where that is far right.
    """
    return "\n".join(line if cell_width(line) <= columns else _wrapped(line, columns) for line in text.split("\n"))


def _wrapped(line: str, columns: int) -> str:
    lead = _LEAD.match(line)
    start = lead.group() if lead is not None else ""
    indent = cell_width(start) if cell_width(start) <= columns // 2 else _NARROW_INDENT
    lines, current = [], start
    for word in line[len(start) :].split(" "):
        extended = current + word if current == start or not current.strip() else f"{current} {word}"
        if cell_width(extended) > columns and current.strip():
            lines.append(current.rstrip())
            extended = " " * indent + word
        current = extended
    return "\n".join([*lines, current])


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _NAMED.get(character) or (f"\\x{code:02x}" if code <= _MAX_LATIN_1 else f"\\u{code:04x}")
