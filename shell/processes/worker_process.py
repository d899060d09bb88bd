"""A worker process: start it, wait until it is ready, stop it."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ...models.environment.paths import Environment
from ...models.errors import EXIT_OK, WorkerStartError

READY_SECONDS = 30.0
STOP_SECONDS = 6.0

Notice = Callable[[str], None]


def foreign_worker_message(name: str, service: str) -> str:
    """Return the notice that a worker of another service isn't started."""
    return f"worker {name} is not started: its service {service} is not nfcli's"


class WorkerHandle:
    """A worker process that this process started; it ends when its stdin is closed, so it doesn't outlive its parent.

    With `is_shared` it outlives its parent while other shells have a lease of it. `foreign_service` is the worker's
    service by the broker's inventory, if that isn't nfcli's; the process has then ended.
    """

    def __init__(self, environment: Environment, name: str, *, log_level: str, is_shared: bool) -> None:
        self.name = name
        self.foreign_service: str | None = None
        self.started = time.monotonic()
        command = [sys.executable, "-P", "-m", "nfcli.worker", "--name", name, "--log-level", log_level]
        self.process = subprocess.Popen(  # noqa: S603  our own interpreter, no shell
            [*command, *environment.arguments, "--while-needed" if is_shared else "--until-stdin-ends"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C at the prompt signals the shell's process group, which the worker must not be in.
            start_new_session=True,
        )

    def wait_ready(self, deadline: float) -> None:
        """Wait until the worker reports that it is ready, or not nfcli's; `deadline` in monotonic seconds.

        Raises:
            WorkerStartError: the worker couldn't start (the message has its reason), or didn't report in time.
        """
        line = self._read_line(deadline)
        if line is None:
            self.stop()
            raise WorkerStartError(f"worker {self.name} was not ready within {READY_SECONDS:g} s: see its log")
        report: dict[str, Any] = json.loads(line) if line else {}
        if report.get("event") == "ready":
            return
        status = self.process.wait()
        if report.get("event") == "skipped" and status == EXIT_OK:
            self.foreign_service = str(report.get("service"))
            return
        raise WorkerStartError(
            f"worker {self.name} can't start: {report.get('error') or f'it ended with status {status}: see its log'}"
        )

    def _read_line(self, deadline: float) -> bytes | None:
        """Return the first line of stdout, a part of it if stdout ends before, None if the deadline passes."""
        stdout = self.stdout_descriptor()
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                chunk = os.read(stdout, 65_536)
                if not chunk:
                    break
                line += chunk
        return line

    def stdout_descriptor(self) -> int:
        """Return the file descriptor of the worker's stdout, which is at its end once the worker is."""
        if self.process.stdout is None:
            raise WorkerStartError(f"worker {self.name} has no stdout")
        return self.process.stdout.fileno()

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
        threading.Thread(target=self.process.wait, name=f"reap-{self.name}", daemon=True).start()  # no zombie

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
