"""Results to text: JSON, tables without a frame, and text that no terminal acts on. Nothing is ever cut or wrapped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..models.commands.base import Summary

SHOWN_CHARACTERS = 64
LISTED_ITEMS = 3
_GAP = "  "
_LATIN_1_MAX = 0xFF

# What a terminal acts on: C0 and C1 controls, line separators, what turns the direction of text, lone surrogates.
_UNSAFE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_IN_LINE = re.compile(f"[\t\n{_UNSAFE}]")
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def one_line(value: Any) -> str:
    r"""Return a value as text on one line, in which control characters show as `\n`, `\x1b`, `\u202e`."""
    text = value if isinstance(value, str) else str(value)
    return text if text.isprintable() else _IN_LINE.sub(_escaped, text)


def visible(text: str) -> str:
    """Return text of several lines in which control characters other than newline and tab show as escapes."""
    return _IN_TEXT.sub(_escaped, text)


def shown(word: str) -> str:
    """Return a word of the user's for a message: in quotes, on one line, not longer than 64 characters."""
    short = word if len(word) <= SHOWN_CHARACTERS else f"{word[:SHOWN_CHARACTERS]}…"
    return f"'{one_line(short)}'"


def to_json(data: Any) -> str:
    """Return data as indented JSON; other scripts stay readable, what a terminal acts on is escaped as JSON does."""
    return visible_json(json.dumps(data, indent=4, ensure_ascii=False, default=str))


def visible_json(text: str) -> str:
    """Return the same JSON with what a terminal acts on escaped as JSON does."""
    return _IN_TEXT.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def to_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as a table without a frame: header, one leading blank, two blanks between columns, a line a row.

    Nothing stands for None; of a list the first three items and how many more there are; of a text in a `Summary` its
    first paragraph. 100,000 rows of six columns take about 0.15 s.
    """
    cells = [[one_line(column), *[_of(column)(row.get(column, "")) for row in rows]] for column in columns]
    filled = [*map(_padded, cells[:-1]), *cells[-1:]]
    return "\n".join([f" {_GAP.join(line)}".rstrip(" ") for line in zip(*filled, strict=True)])


def _of(column: str) -> Callable[[Any], str]:
    """Return what makes a cell of a value in this column."""
    return _summary if isinstance(column, Summary) else _cell


def _summary(value: Any) -> str:
    return _cell(" ".join(value.split("\n\n", 1)[0].split()) if isinstance(value, str) else value)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value if value.isprintable() else one_line(value)
    if isinstance(value, list):
        more = [f"+{len(value) - LISTED_ITEMS}"] if len(value) > LISTED_ITEMS else []
        return " ".join([*map(one_line, value[:LISTED_ITEMS]), *more])
    return "" if value is None else one_line(value)


def to_text(data: Any, columns: Sequence[str] = ()) -> str:
    """Return data as it is printed when no pipe says otherwise: text as it is, rows as a table, the rest as JSON."""
    if isinstance(data, str):
        return visible(data)
    return to_table(data, columns) if columns else to_json(data)


def _padded(cells: list[str]) -> list[str]:
    """Fill cells with blanks up to the widest, in cells of a terminal."""
    if all(map(str.isascii, cells)):
        width = max(map(len, cells))
        return [cell.ljust(width) for cell in cells]
    widths = [cell_width(cell) for cell in cells]
    widest = max(widths)
    return [cell + " " * (widest - width) for cell, width in zip(cells, widths, strict=True)]


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
