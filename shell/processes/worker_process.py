"""A worker process: start it, wait until it is ready, stop it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ...models.environment.paths import Environment
from ...models.errors import EXIT_OK, WorkerStartError
from .fork_client import ForkClient, ForkedProcess

READY_SECONDS = 30.0
STOP_SECONDS = 6.0

Notice = Callable[[str], None]


def describe_end(status: int | None) -> str:
    """Return how a process has ended, by its exit status: negative, it is the number of the signal that killed it."""
    if status is None or status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-status}"


def foreign_worker_message(name: str, service: str) -> str:
    """Return the notice that a worker of another service isn't started."""
    return f"worker {name} is not started: its service {service} is not nfcli's"


class NotReadyError(WorkerStartError):
    """A worker was not ready in time."""


class WorkerHandle:
    """A worker process that this process started; it ends when its stdin is closed, so it doesn't outlive its parent.

    With `is_shared` it outlives its parent while other shells have a lease of it, and what plugins print is lost, as it
    would disturb a prompt; else it goes to this process's stderr. `foreign_service` is the worker's
    service by the broker's inventory, if that isn't nfcli's; the process has then ended. `url` is where a worker that
    is ready serves MCP, `warnings` are what it reports about its configuration.

    `forks` starts the process in a tenth of the time.

    Raises:
        WorkerStartError: the system starts no further process now.
    """

    def __init__(
        self, environment: Environment, name: str, *, log_level: str, is_shared: bool, forks: ForkClient | None = None
    ) -> None:
        self.name = name
        self.foreign_service: str | None = None
        self.url = ""
        self.warnings: list[str] = []
        self.started = time.monotonic()
        self._unread = b""
        arguments = ["--name", name, "--log-level", log_level, *environment.arguments]
        arguments.append("--while-needed" if is_shared else "--until-stdin-ends")
        self.process: subprocess.Popen[bytes] | ForkedProcess
        try:
            if forks is not None:
                self.process = forks.spawn(arguments)
                return
            self.process = subprocess.Popen(  # noqa: S603  our own interpreter, no shell
                [sys.executable, "-P", "-m", "nfcli.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if is_shared else None,
                # Ctrl-C at the prompt signals the shell's process group, which the worker must not be in.
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerStartError(f"worker {name} can't start: no new process: {error.strerror}") from error

    def wait_ready(self, deadline: float) -> None:
        """Wait until the worker reports that it is ready, or not nfcli's; `deadline` in monotonic seconds.

        Raises:
            WorkerStartError: the worker couldn't start (the message has its reason), or didn't report in time.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout_descriptor(), selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                if self.take_start_report():
                    return
        raise self.not_ready()

    def not_ready(self) -> WorkerStartError:
        """Kill a worker that wasn't ready in time; return the error that says so."""
        self.kill()
        return NotReadyError(f"worker {self.name} was not ready within {READY_SECONDS:g} s: see its log")

    def take_start_report(self) -> bool:
        """Read what has come of the worker's first report; return whether it is complete, and set what it has.

        Raises:
            WorkerStartError: the worker couldn't start.
        """
        reports = self.read_reports()
        if reports is None:
            reports = [{}]
        for report in reports:
            event = report.get("event")
            if event == "ready":
                self.url = str(report.get("url"))
                self.warnings = [str(each) for each in report.get("warnings") or ()]
                return True
            status = self.process.wait()
            if event == "skipped" and status == EXIT_OK:
                self.foreign_service = str(report.get("service"))
                return True
            reason = report.get("error") or f"it {describe_end(status)}: see its log"
            raise WorkerStartError(f"worker {self.name} can't start: {reason}")
        return False

    def read_reports(self) -> list[dict[str, Any]] | None:
        """Return what the worker has reported since the last call, waiting until there is something; None at its end.

        Each report is a JSON object, with `event`; a line that isn't one is skipped.
        """
        chunk = os.read(self.stdout_descriptor(), 65_536)
        if not chunk:
            return None
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        return [report for line in lines if isinstance(report := _decoded(line), dict)]

    def ask(self) -> None:
        """Have a ready worker report `alive`, without waiting."""
        if self.process.stdin is not None:
            descriptor = self.process.stdin.fileno()
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError):  # it has ended, or has left 64 KiB of questions unread
                os.write(descriptor, b"?")

    def stdout_descriptor(self) -> int:
        """Return the file descriptor of the worker's stdout, which is at its end once the worker is."""
        if self.process.stdout is None:
            raise WorkerStartError(f"worker {self.name} has no stdout")
        return self.process.stdout.fileno()

    def kill(self) -> None:
        """End the worker at once."""
        self.process.kill()
        self.process.wait()
        self._close_pipes()

    def request_stop(self) -> None:
        """Send SIGTERM, without waiting."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """Stop the worker: SIGTERM, then SIGKILL after `STOP_SECONDS`."""
        self.request_stop()
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close_pipes()

    def detach(self) -> None:
        """Leave a shared worker running for the shells that have a lease of it; it ends after the last of them."""
        self._close_pipes()
        with contextlib.suppress(RuntimeError):  # no further thread: a zombie until this process ends, soon
            threading.Thread(target=self.process.wait, name=f"reap-{self.name}", daemon=True).start()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _decoded(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
