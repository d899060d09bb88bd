"""Results to text: JSON, tables without a frame, and text that no terminal acts on. Nothing is ever cut or wrapped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ...models.commands.base import Summary
from ..text import _IN_TEXT, cell_width, escape_line, escape_text

LISTED_ITEMS = 3
_GAP = "  "


def to_json(data: Any) -> str:
    """Return data as indented JSON; other scripts stay readable, what a terminal acts on is escaped as JSON does."""
    return escape_json(json.dumps(data, indent=4, ensure_ascii=False, default=str))


def escape_json(text: str) -> str:
    """Return the same JSON with what a terminal acts on escaped as JSON does."""
    return _IN_TEXT.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def to_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as a table without a frame: header, one leading blank, two blanks between columns, a line a row.

    Nothing stands for None; of a list the first three items and how many more there are; of a text in a `Summary` its
    first paragraph. 100,000 rows of six columns take about 0.15 s.
    """
    cells = [[escape_line(column), *[_of(column)(row.get(column, "")) for row in rows]] for column in columns]
    filled = [*map(_padded, cells[:-1]), *cells[-1:]]
    return "\n".join([f" {_GAP.join(line)}".rstrip(" ") for line in zip(*filled, strict=True)])


def _of(column: str) -> Callable[[Any], str]:
    """Return what makes a cell of a value in this column."""
    return _summary if isinstance(column, Summary) else _cell


def _summary(value: Any) -> str:
    return _cell(" ".join(value.split("\n\n", 1)[0].split()) if isinstance(value, str) else value)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value if value.isprintable() else escape_line(value)
    if isinstance(value, list):
        more = [f"+{len(value) - LISTED_ITEMS}"] if len(value) > LISTED_ITEMS else []
        return " ".join([*map(escape_line, value[:LISTED_ITEMS]), *more])
    return "" if value is None else escape_line(value)


def to_text(data: Any, columns: Sequence[str] = ()) -> str:
    """Return data as it is printed when no pipe says otherwise: text as it is, rows as a table, the rest as JSON."""
    if isinstance(data, str):
        return escape_text(data)
    return to_table(data, columns) if columns else to_json(data)


def _padded(cells: list[str]) -> list[str]:
    """Fill cells with blanks up to the widest, in cells of a terminal."""
    if all(map(str.isascii, cells)):
        width = max(map(len, cells))
        return [cell.ljust(width) for cell in cells]
    widths = [cell_width(cell) for cell in cells]
    widest = max(widths)
    return [cell + " " * (widest - width) for cell, width in zip(cells, widths, strict=True)]
