"""Output of long lists: the lines of the rows that there are, before the other rows have come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .render import Table

Rows = Sequence[dict[str, Any]]


class RowStream(Protocol):
    """Turns rows into lines."""

    def lines(self, rows: Rows) -> list[str]:
        """Return the lines that are complete with these rows; called at least once, also for an empty list."""

    def end(self) -> list[str]:
        """Return the lines that follow the last rows."""


class TableStream:
    """A table without a frame; a column gets wider where later rows need it."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._table = Table(columns)

    def lines(self, rows: Rows) -> list[str]:
        """Return the lines of the rows, after the header at first."""
        return self._table.lines(rows)

    def end(self) -> list[str]:
        """Return none."""
        return []


class JsonStream:
    """A JSON array; `dump` returns that of some rows, indented, `separator` is between items in it."""

    def __init__(self, dump: Callable[[Rows], str], separator: str) -> None:
        self._dump = dump
        self._separator = separator
        self._last: str | None = None

    def lines(self, rows: Rows) -> list[str]:
        """Return all lines but the last of an item: the next item decides how it ends."""
        if not rows:
            return []
        lines = self._dump(rows).split("\n")
        before = lines[:1] if self._last is None else [self._last + self._separator]
        self._last = lines[-2]
        return before + lines[1:-2]

    def end(self) -> list[str]:
        """Return the last line of the last item and the end of the array."""
        return [self._dump([])] if self._last is None else [self._last, "]"]


class FilteredStream:
    """The lines of another stream that `keeps` returns true for."""

    def __init__(self, stream: RowStream, keeps: Callable[[str, str], bool], option: str) -> None:
        self._stream = stream
        self._keeps = keeps
        self._option = option

    def lines(self, rows: Rows) -> list[str]:
        """Return those of the rows' lines that are kept."""
        return self._filter(self._stream.lines(rows))

    def end(self) -> list[str]:
        """Return those of the last lines that are kept."""
        return self._filter(self._stream.end())

    def _filter(self, lines: list[str]) -> list[str]:
        return [line for line in lines if self._keeps(line, self._option)]
