"""The entry point of the `nfcli` program: reports Ctrl-C while the program's modules load, which take half a second."""

from __future__ import annotations

import sys

_EXIT_INTERRUPTED = 130  # as in `repl/script.py`, which takes long to import


def main() -> int:
    """Run nfcli with the arguments of the command line; return the exit status."""
    try:
        from ..models.environment.core_dumps import forbid_core_dumps  # noqa: PLC0415  as below
        from .cli import main as run  # noqa: PLC0415  an interrupt of this import is handled here

        forbid_core_dumps()
        return run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return _EXIT_INTERRUPTED
