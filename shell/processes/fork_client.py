"""Workers as forks of one process that has loaded their modules (`worker/fork_server.py`)."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO

from ...models.errors import EXIT_FAILED

_ANSWER_SECONDS = 30.0
_POLL_SECONDS = 0.02


class ForkedProcess:
    """A process that another one has forked, with the part of `subprocess.Popen` that workers need."""

    def __init__(self, pid: int, stdin: BinaryIO, stdout: BinaryIO, status: BinaryIO) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit status, None while the process runs."""
        return self._wait(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit status, negative the number of a signal."""
        status = self._wait(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # its end was not reported yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            deadline = None if timeout is None else time.monotonic() + timeout
            poll = select.poll()
            poll.register(self._status, select.POLLIN)
            if poll.poll(None if timeout is None else timeout * 1000):
                text = self._status.read()
                if not text and not self._is_gone(deadline):  # the process that would report it has ended
                    return None
                self.returncode = int(text or EXIT_FAILED)
                self._status.close()
        return self.returncode

    def _is_gone(self, deadline: float | None) -> bool:
        """Wait until the process is gone; return whether it is at the deadline."""
        while True:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)


class ForkClient:
    """A process that forks workers; it ends with `close`, or with this process, and its workers go on.

    With `has_stderr` they have this process's stderr, else none.

    Raises:
        OSError: the system starts no further process now.
    """

    def __init__(self, *, has_stderr: bool = False) -> None:
        self._requests, other = socket.socketpair()
        with other:
            try:
                self._process = subprocess.Popen(  # noqa: S603  our own interpreter, no shell
                    [sys.executable, "-P", "-m", "nfcli.worker.fork_server", str(other.fileno())],
                    pass_fds=[other.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=None if has_stderr else subprocess.DEVNULL,
                    start_new_session=True,
                )
            except BaseException:
                self._requests.close()
                raise
        self._requests.settimeout(_ANSWER_SECONDS)

    def spawn(self, arguments: Sequence[str]) -> ForkedProcess:
        """Fork a worker with these arguments.

        Raises:
            OSError: that isn't possible, or the process that forks has ended.
        """
        pipes = [os.pipe(), os.pipe(), os.pipe()]
        stdin, stdout, status = pipes
        try:
            pid = self._request(arguments, [stdin[0], stdout[1], status[1]])
        except BaseException:
            for descriptor in (stdin[1], stdout[0], status[0]):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (stdin[0], stdout[1], status[1]):
                os.close(descriptor)
        ours = os.fdopen(stdin[1], "wb", buffering=0), os.fdopen(stdout[0], "rb", buffering=0)
        return ForkedProcess(pid, *ours, os.fdopen(status[0], "rb", buffering=0))

    def _request(self, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
        socket.send_fds(self._requests, [json.dumps(list(arguments)).encode()], descriptors)
        answer = json.loads(self._requests.makefile("rb", buffering=0).readline() or b"{}")
        if "pid" not in answer:
            raise OSError(0, answer.get("error", "the process that starts workers has ended"))
        return int(answer["pid"])

    def close(self) -> None:
        """End the process that forks, not its workers."""
        self._requests.close()
        self._process.wait()
