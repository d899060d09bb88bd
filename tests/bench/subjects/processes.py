"""Processes that a benchmark starts: they never outlive it, and what they use can be seen."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOP_SECONDS = 15.0
_BENCH = Path(__file__).parents[1]
_SHOWN_CHARACTERS = 2_000


class BenchError(Exception):
    """A process doesn't do what it is there for."""


@contextlib.contextmanager
def child(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that ends with its stdin; whatever it started is killed with it.

    `folder` is its working folder, and has its stderr in a file of that name. The modules of the benchmark can be
    imported there.
    """
    environ = {**os.environ, "PYTHONPATH": str(_BENCH)}
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=environ,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Driver:
    """A process that answers calls as `answering.py` says.

    Several drivers can work at the same time: `ask` them all, then take the `answer` of each.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._folder = folder

    @classmethod
    @contextlib.contextmanager
    def running(cls, command: Sequence[str], folder: Path) -> Iterator[Driver]:
        """Run a driver; `folder` as for `child`."""
        with child(command, folder) as process:
            yield cls(process, folder)

    def ask(self, method: str, **arguments: Any) -> None:
        """Begin a call."""
        if self._process.stdin is None:
            raise BenchError("the driver has no pipes")
        self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the end of the call that was begun and return its value."""
        line = self._process.stdout.readline() if self._process.stdout is not None else b""
        if not line:
            said = (self._folder / "stderr").read_text(errors="replace")[-_SHOWN_CHARACTERS:]
            raise BenchError(f"a driver has ended: {said}")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"a driver failed: {answer['error']}")
        return answer["value"]

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method and return what it returned."""
        self.ask(method, **arguments)
        return self.answer()


@dataclass(frozen=True)
class Vitals:
    """What a process holds: open file descriptors, threads, resident memory in MB (10^6 bytes)."""

    descriptors: int
    threads: int
    megabytes: float


def vitals(pid: int) -> Vitals:
    """Look at a process; needs Linux."""
    folder = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return Vitals(len(list((folder / "fd").iterdir())), int(status["Threads"]), resident_megabytes(pid))


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process in MB (10^6 bytes)."""
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(shown.stdout) * 1_024 / 1e6
