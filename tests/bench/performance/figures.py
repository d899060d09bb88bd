"""Figures: what was measured, beside the reference's and the target, and how they are printed."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

_HEADERS = ("measured", "reference", "better", "target", "met")
_MET = {True: "yes", False: "NO", None: ""}
_INDENT, _COLUMNS = "    ", 80
_MORE_IS_BETTER = "/s"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Args:
        work: what was done.
        measured: our figure in `unit`.
        unit: `us`, `ms`, `s`, `MB` or `x` (times), where less is better, or `/s`, where more is.
        reference: the reference's figure of the same run, None where there is none.
        target: the promise, in words.
        met: whether it holds; None where that takes a reference that wasn't measured, or nothing was promised.
        details: further figures, by a name that ends in their unit.
    """

    work: str
    measured: float
    unit: str
    reference: float | None = None
    target: str = ""
    met: bool | None = None
    details: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Return how many times better than the reference this is."""
        if self.reference is None or not self.measured or not self.reference:
            return None
        return self.measured / self.reference if self.unit == _MORE_IS_BETTER else self.reference / self.measured

    @property
    def headers(self) -> tuple[str, ...]:
        """Return the headers of the columns behind the first."""
        return _HEADERS

    def row(self) -> list[str]:
        """Return the line's columns."""
        reference = "" if self.reference is None else shown(self.reference, self.unit)
        ratio = "" if self.ratio is None else f"{self.ratio:.1f} x"
        return [self.work, shown(self.measured, self.unit), reference, ratio, self.target, _MET[self.met]]


@dataclass(frozen=True)
class Growth:
    """One line of a table that shows how a cost grows.

    Args:
        work: what was done.
        measured: our figures in `unit`, by the heading of their column.
        unit: as a `Figure` has it.
        factor: what is promised about, for instance how many times more the last takes than the first.
        target: the promise, in words.
        met: whether it holds; None where nothing was promised.
    """

    work: str
    measured: dict[str, float]
    unit: str
    factor: float
    target: str = ""
    met: bool | None = None
    details: dict[str, float] = field(default_factory=dict)

    @property
    def headers(self) -> tuple[str, ...]:
        """Return the headers of the columns behind the first."""
        return (*self.measured, "factor", "target", "met")

    def row(self) -> list[str]:
        """Return the line's columns."""
        figures = [shown(value, self.unit) for value in self.measured.values()]
        return [self.work, *figures, f"{self.factor:.2f}", self.target, _MET[self.met]]


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of the samples don't exceed."""
    if len(samples) == 1:
        return samples[0]
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def shown(value: float, unit: str) -> str:
    """Return a figure as people read it."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def tables(title: str, figures: Sequence[Figure | Growth]) -> str:
    """Return the figures of one subject, a table for each kind of line."""
    parts = []
    for headers, group in groupby(figures, key=lambda figure: figure.headers):
        lines = list(group)
        heading, *rows = columns([[title, *headers], *(line.row() for line in lines)])
        text = [heading]
        for line, row in zip(lines, rows, strict=True):
            text.append(row)
            details = ", ".join(f"{name} {value:,.3g}" for name, value in line.details.items())
            text += textwrap.wrap(details, _COLUMNS, initial_indent=_INDENT, subsequent_indent=_INDENT)
        parts.append("\n".join(text) + "\n")
    return "\n".join(parts)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row, their columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
