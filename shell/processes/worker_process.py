"""One worker process: started, awaited, stopped."""

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


def not_ours_notice(name: str, service: str) -> str:
    """Return what users are told of a worker that is another service's."""
    return f"worker {name} is not started: nfcli has no service {service}"


class WorkerHandle:
    """A worker process that this process started; it ends when its stdin is closed, so it can't outlive us.

    `is_shared`: it outlives us as long as other shells need it. `foreign_service`: what the broker's inventory says
    that the worker serves, where that is nothing of nfcli's and the process has ended for it.
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
            # Ctrl-C at the prompt goes to the shell's process group: the worker isn't in it.
            start_new_session=True,
        )

    def wait_ready(self, deadline: float) -> None:
        """Wait until the worker says that it is ready, or none of nfcli's; `deadline` in monotonic seconds.

        Raises:
            WorkerStartError: the worker couldn't start, with its own reason, or said nothing in time.
        """
        line = self._read_line(deadline)
        if line is None:
            self.stop()
            raise WorkerStartError(f"worker {self.name} was not ready within {READY_SECONDS:g} s: see its log")
        said: dict[str, Any] = json.loads(line) if line else {}
        if said.get("event") == "ready":
            return
        status = self.process.wait()
        if said.get("event") == "skipped" and status == EXIT_OK:
            self.foreign_service = str(said.get("service"))
            return
        raise WorkerStartError(
            f"worker {self.name} can't start: {said.get('error') or f'it ended with status {status}: see its log'}"
        )

    def _read_line(self, deadline: float) -> bytes | None:
        """Return the first line of stdout; what there is of it at its end; None when time is up."""
        stdout = self.stdout_number()
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

    def stdout_number(self) -> int:
        """Return the file descriptor of the worker's stdout, which ends when the worker does."""
        if self.process.stdout is None:
            raise WorkerStartError(f"worker {self.name} has no stdout")
        return self.process.stdout.fileno()

    def ask_to_stop(self) -> None:
        """Ask the worker to end; doesn't wait."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """End the worker: ask, wait, kill."""
        self.ask_to_stop()
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close_pipes()

    def leave(self) -> None:
        """Let a shared worker run for the others that need it; it ends by itself when they have gone."""
        self._close_pipes()
        threading.Thread(target=self.process.wait, name=f"leave-{self.name}", daemon=True).start()  # no zombie

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
