"""Processes that another one has forked, at the moment of their end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nfcli.shell.processes.fork_client import ForkedProcess


def test_signal_to_a_process_whose_end_was_not_reported_yet_is_dropped() -> None:
    """As `subprocess.Popen` drops it; the exit status comes later."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    reading, writing = os.pipe()
    with (
        Path(os.devnull).open("wb", buffering=0) as stdin,
        Path(os.devnull).open("rb", buffering=0) as stdout,
        os.fdopen(reading, "rb", buffering=0) as status,
    ):
        process = ForkedProcess(ended.pid, stdin, stdout, status)
        process.terminate()
        process.kill()
        os.write(writing, b"3")
        os.close(writing)
        assert (process.wait(5), process.poll()) == (3, 3)
