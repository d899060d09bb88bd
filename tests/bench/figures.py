"""Figures: what was measured, beside the reference's and the target, and how they are printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

_HEADERS = ("work", "measured", "reference", "times better", "target", "met")


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Args:
        work: what was done.
        measured: our figure in `unit`.
        unit: `us`, `ms`, `s`, `MB`, where less is better, or `/s`, where more is.
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
        return self.measured / self.reference if self.unit == "/s" else self.reference / self.measured


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of the samples don't exceed."""
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table."""
    rows = []
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.1f}"
        met = {True: "yes", False: "NO", None: ""}[figure.met]
        reference = "" if figure.reference is None else _number(figure.reference, figure.unit)
        rows.append([figure.work, _number(figure.measured, figure.unit), reference, ratio, figure.target, met])
        details = ", ".join(f"{name} {value:.3g}" for name, value in figure.details.items())
        if details:
            rows.append([f"    {details}"])
    return tabulate(rows, headers=_HEADERS, tablefmt="plain", disable_numparse=True, preserve_whitespace=True)


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"
