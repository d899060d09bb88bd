"""Options of NorFab's own `nfcli` that this one doesn't have: each ends with a line that says what to use instead."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ..models.errors import UsageError

_INSTEAD = {
    (
        "-b",
        "--broker",
    ): "nfcli starts no broker: start NorFab's own with its nfcli -b, or omit broker: from the inventory",
    ("-s", "--show-broker-shared-key"): (
        "nfcli has no broker: NorFab's own nfcli -s shows the key, and broker.shared_key in the inventory takes it"
    ),
    ("-wl", "--workers-list"): "name the workers in topology.workers of an inventory and run nfcli -i FILE -w",
    ("--web-ui",): "nfcli has no web client: run nfcli without it",
    ("--tui",): "nfcli has no full-screen client: run nfcli without it",
}


def add_norfab_options(parser: argparse.ArgumentParser) -> None:
    """Add the options, which the help doesn't list; parsing one raises UsageError."""
    for names, instead in _INSTEAD.items():
        nargs = "?" if "-wl" in names else 0
        parser.add_argument(*names, action=_Refusal, nargs=nargs, const=instead, help=argparse.SUPPRESS)


class _Refusal(argparse.Action):
    def __call__(self, *given: object) -> NoReturn:
        """Raise the error; argparse gives parser, namespace, value and the option as it was typed."""
        raise UsageError(f"{given[-1]}: {self.const}")
