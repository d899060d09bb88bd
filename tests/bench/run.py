"""The benchmark: measures what the product promises and prints it beside the targets.

    python tests/bench/run.py [--markdown] [--json FILE] [--only NAME…]

Where the variable NFCLI_REFERENCE_PYTHON names a Python with the package norfab, the reference is measured in the same
run, in turn with ours. A figure is worth something only on a machine that does nothing else. Linux only, as the floods
come from a second loopback address.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from performance import flood, growth, http_rates, listings, machine, round_trips, shell_times, verification
from performance.fabrics import fabric
from performance.figures import Figure, Growth, tables
from subjects.processes import BenchError
from subjects.sites import Sites

_Measurement = Callable[[Sites], Iterator[Figure | Growth]]

MEASUREMENTS: dict[str, tuple[str, _Measurement]] = {
    "jobs": ("job round trips, p50", round_trips.measure),
    "verify": ("verification, p50", verification.measure),
    "http": ("MCP over HTTP, 8 connections", http_rates.measure),
    "shell": ("the shell, median", shell_times.measure),
    "lists": ("many tokens, median", listings.measure),
    "growth": ("growth, p50", growth.measure),
    "fabric": ("a fabric of many, p50", fabric.measure),
    "flood": ("100 good pings a second, p99", flood.measure),
}
_FENCE = "```"


def main() -> None:
    """Run the measurements and print the tables."""
    arguments = _arguments()
    reference = os.environ.get("NFCLI_REFERENCE_PYTHON")
    figures: dict[str, list[Figure | Growth]] = {}
    with tempfile.TemporaryDirectory(prefix="nf") as folder:
        _leave_home(Path(folder))
        described = machine.description(Path(folder), reference) | {"load before": machine.load()}
        for name in arguments.only or MEASUREMENTS:
            sys.stderr.write(f"measuring {name} …")
            sys.stderr.flush()
            start = time.perf_counter()
            # A site of its own for each: what one leaves behind doesn't meet the next.
            with tempfile.TemporaryDirectory(dir=folder) as site:
                figures[name] = list(MEASUREMENTS[name][1](Sites(Path(site), reference)))
            sys.stderr.write(f" {time.perf_counter() - start:.0f} s\n")
    blocks = [tables(MEASUREMENTS[name][0], group) for name, group in figures.items()]
    blocks.insert(0, machine.lines(described) + "\n")
    if arguments.markdown:
        blocks = [f"{_FENCE}text\n{block}{_FENCE}\n" for block in blocks]
    sys.stdout.write("\n".join(blocks))
    if arguments.json is not None:
        _write(arguments.json, described, figures)


def _write(file: Path, described: dict[str, str], figures: dict[str, list[Figure | Growth]]) -> None:
    about = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **described,
        "figures": {name: [asdict(figure) for figure in group] for name, group in figures.items()},
    }
    file.write_text(json.dumps(about, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure nfcli.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    parser.add_argument("--markdown", action="store_true", help="print as the manual's page has it")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS))
    return parser.parse_args()


def _leave_home(folder: Path) -> None:
    """Keep every process away from the user's files, and from proxies."""
    os.environ["HOME"] = str(folder)
    for name in list(os.environ):
        if name.startswith("XDG_") or name.lower().endswith("_proxy"):
            del os.environ[name]


if __name__ == "__main__":
    try:
        main()
    except BenchError as problem:
        sys.exit(f"the benchmark ended early: {problem}")
