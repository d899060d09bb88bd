"""One process of NorFab's, its broker or one of its workers; run by a Python that has the package norfab.

    process.py FOLDER [WORKER]

FOLDER holds an `inventory.yaml` of NorFab's. The process prints `ready` when it is; it ends on SIGTERM, and when its
stdin ends, so that it never outlives who started it. A broker says goodbye to its workers then, a worker says none.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from norfab.core.nfapi import NorFab, start_broker_process, start_worker_process


class Announcement:
    """What the reference sets when it is done with its start, as the event that it takes for one."""

    def __init__(self) -> None:
        # NorFab prints; what isn't the announcement goes to stderr.
        self._stdout = os.dup(1)
        os.dup2(2, 1)

    def set(self) -> None:
        """Say that the start is over."""
        os.write(self._stdout, b"ready\n")


def run_broker(norfab: NorFab, ready: Announcement) -> None:
    """Mediate until SIGTERM."""
    over = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        over.set()

    signal.signal(signal.SIGTERM, stop)
    start_broker_process(norfab.broker_endpoint, over, norfab.inventory, None, ready)


def run_worker(norfab: NorFab, name: str, ready: Announcement) -> None:
    """Work until SIGTERM, which a worker of the reference sends to itself on the request to end."""
    plugin = norfab.worker_plugins[norfab.inventory[name]["service"]]
    start_worker_process(plugin, norfab.inventory, norfab.broker_endpoint, name, threading.Event(), None, ready)


def end_with_stdin() -> None:
    """Wait for the end of stdin, then end this process."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Be the broker, or the worker that the second argument names."""
    ready = Announcement()
    threading.Thread(target=end_with_stdin, daemon=True).start()
    norfab = NorFab(inventory=str(Path(sys.argv[1]) / "inventory.yaml"))
    norfab.add_built_in_workers_inventory()  # as its own start does
    if sys.argv[2:]:
        run_worker(norfab, sys.argv[2], ready)
    else:
        run_broker(norfab, ready)


if __name__ == "__main__":
    main()
