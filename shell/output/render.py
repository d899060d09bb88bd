"""Render results as JSON, as tables without a frame, or as text, control characters escaped; never cut or wrapped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...models.commands.base import LocalTime, Summary
from ..text import UNSAFE_IN_TEXT, cell_width, escape_line, escape_text

LISTED_ITEMS = 3
_GAP = "  "
_ISO_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9:.]+)([+-][0-9:.]+|Z)\Z")


def to_json(data: Any) -> str:
    """Return data as indented JSON in which only control characters are escaped."""
    return escape_json(json.dumps(data, indent=4, ensure_ascii=False, default=str))


def escape_json(text: str) -> str:
    """Return JSON text with control characters escaped as JSON does."""
    return UNSAFE_IN_TEXT.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def to_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as a table without a frame: a header and a line for each row, two blanks between columns.

    A cell is empty for None, has a list's first three items and the number of the others, in a `Summary` column a
    text's first paragraph, and in a `LocalTime` column what it says. 100,000 rows of six columns take about 0.15 s.
    """
    return "\n".join(Table(columns).lines(rows))


class Table:
    """A table whose rows come in parts; a column gets wider where a later part needs it."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._widths: list[int] = []

    def lines(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the lines of rows; the header comes before those of the first part."""
        is_first = not self._widths
        cells = []
        for column in self._columns:
            to_cell = _to_cell(column)
            header = [escape_line(column)] if is_first else []
            cells.append([*header, *[to_cell(row.get(column, "")) for row in rows]])
        known = self._widths or [0] * len(cells)
        self._widths = [max(width, _width(column)) for width, column in zip(known, cells, strict=True)]
        filled = [*map(_pad, cells[:-1], self._widths), *cells[-1:]]
        return [f" {_GAP.join(line)}".rstrip(" ") for line in zip(*filled, strict=True)]


def _to_cell(column: str) -> Callable[[Any], str]:
    if isinstance(column, Summary):
        return _summary
    return local_time if isinstance(column, LocalTime) else _cell


def local_time(value: Any) -> str:
    """Return a time as tables show it: without the offset, and None as the word."""
    if value is None:
        return "None"
    return _ISO_TIME.sub(r"\1 \2", value) if isinstance(value, str) and value.isprintable() else _cell(value)


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


def _width(cells: list[str]) -> int:
    measure = len if all(map(str.isascii, cells)) else cell_width
    return max(map(measure, cells), default=0)


def _pad(cells: list[str], width: int) -> list[str]:
    """Pad a column's cells with blanks to a width, as a terminal shows them."""
    if all(map(str.isascii, cells)):
        return [cell.ljust(width) for cell in cells]
    return [cell + " " * (width - cell_width(cell)) for cell in cells]
