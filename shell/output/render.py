"""Render results as JSON, as tables without a frame, or as text, control characters escaped; never cut or wrapped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...models.commands.base import Summary
from ..text import UNSAFE_IN_TEXT, cell_width, escape_line, escape_text

LISTED_ITEMS = 3
_GAP = "  "


def to_json(data: Any) -> str:
    """Return data as indented JSON in which only control characters are escaped."""
    return escape_json(json.dumps(data, indent=4, ensure_ascii=False, default=str))


def escape_json(text: str) -> str:
    """Return JSON text with control characters escaped as JSON does."""
    return UNSAFE_IN_TEXT.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def to_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as a table without a frame: a header and a line for each row, two blanks between columns.

    A cell is empty for None, has a list's first three items and the number of the others, and in a `Summary` column a
    text's first paragraph. 100,000 rows of six columns take about 0.15 s.
    """
    cells = []
    for column in columns:
        to_cell = _summary if isinstance(column, Summary) else _cell
        cells.append([escape_line(column), *[to_cell(row.get(column, "")) for row in rows]])
    filled = [*map(_pad, cells[:-1]), *cells[-1:]]
    return "\n".join([f" {_GAP.join(line)}".rstrip(" ") for line in zip(*filled, strict=True)])


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
    """Return data as it is printed without a pipe: text as it is, rows as a table, anything else as JSON."""
    if isinstance(data, str):
        return escape_text(data)
    return to_table(data, columns) if columns else to_json(data)


def _pad(cells: list[str]) -> list[str]:
    """Pad a column's cells with blanks to the widest, as a terminal shows them."""
    if all(map(str.isascii, cells)):
        width = max(map(len, cells))
        return [cell.ljust(width) for cell in cells]
    widths = [cell_width(cell) for cell in cells]
    widest = max(widths)
    return [cell + " " * (widest - width) for cell, width in zip(cells, widths, strict=True)]
