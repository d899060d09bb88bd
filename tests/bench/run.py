"""The benchmark: measures what the product promises and prints it beside the targets.

    python tests/bench/run.py [--json FILE] [--only NAME…]

Where the variable NFCLI_REFERENCE_PYTHON names a Python with the package norfab, the reference is measured in the same
run. A figure is worth something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import http_rates
import listings
import round_trips
import shell_times
import verification
from figures import Figure, table
from sites import Sites

MEASUREMENTS: dict[str, Callable[[Sites], Iterator[Figure]]] = {
    "jobs": round_trips.measure,
    "verify": verification.measure,
    "http": http_rates.measure,
    "shell": shell_times.measure,
    "lists": listings.measure,
}


def main() -> None:
    """Run the measurements and print the table."""
    arguments = _arguments()
    reference = os.environ.get("NFCLI_REFERENCE_PYTHON")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="nf") as folder:
        _leave_home(Path(folder))
        sites = Sites(Path(folder), reference)
        for name in arguments.only or MEASUREMENTS:
            sys.stderr.write(f"measuring {name}\n")
            figures += MEASUREMENTS[name](sites)
    sys.stdout.write(table(figures) + "\n")
    if arguments.json is not None:
        about = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "nfcli": version("nfcli"),
            "figures": [{**asdict(figure), "ratio": figure.ratio} for figure in figures],
        }
        arguments.json.write_text(json.dumps(about, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure nfcli.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS))
    return parser.parse_args()


def _leave_home(folder: Path) -> None:
    """Keep every process away from the user's files, and from proxies."""
    os.environ["HOME"] = str(folder)
    for name in list(os.environ):
        if name.startswith("XDG_") or name.lower().endswith("_proxy"):
            del os.environ[name]


if __name__ == "__main__":
    main()
