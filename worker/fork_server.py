"""Start workers by forking a process that has loaded their modules: `python -m nfcli.worker.fork_server DESCRIPTOR`.

Loading takes most of a worker's start and of its memory. This process does it once, opens neither database nor socket
nor thread, and forks a worker for each request on the socket with this descriptor: a line of JSON, the arguments of
`python -m nfcli.worker`, with three descriptors: the worker's stdin and stdout, and where its exit status is written as
text. It answers with the process id in a line. At the end of the socket it ends; its workers go on.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress

from ..models.environment.core_dumps import forbid_core_dumps
from . import process

_MAX_REQUEST_BYTES = 65_536
_PR_SET_NAME = 15  # prctl(2)


class ForkServer:
    """Answers the requests on a socket."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._statuses: dict[int, int] = {}
        self._ended, self._signals = os.pipe()
        for descriptor in (self._ended, self._signals):
            os.set_blocking(descriptor, False)

    def serve(self) -> list[str] | None:
        """Fork workers until the socket's end, then return None; in a worker, return its arguments."""
        before = signal.signal(signal.SIGCHLD, lambda *_: None), signal.set_wakeup_fd(self._signals)
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == self._ended:
                        self._reap()
                        continue
                    request, descriptors, *_ = socket.recv_fds(self._requests, _MAX_REQUEST_BYTES, 3)
                    if not request:
                        return None
                    if self._fork(*descriptors):
                        continue
                    signal.set_wakeup_fd(before[1])
                    signal.signal(signal.SIGCHLD, before[0])
                    self._close_in_worker()
                    return [str(word) for word in json.loads(request)]

    def _fork(self, stdin: int, stdout: int, status: int) -> int:
        """Return the process id of the new worker, 0 in the worker."""
        try:
            pid = os.fork()  # noqa: TID251  this process has no threads, databases or connections
        except OSError as error:
            self._requests.sendall(json.dumps({"error": error.strerror}).encode() + b"\n")
            pid = -1
        if pid == 0:
            os.setsid()
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
        elif pid > 0:
            self._statuses[pid] = os.dup(status)
            self._requests.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        for descriptor in (stdin, stdout, status):
            os.close(descriptor)
        return pid

    def _reap(self) -> None:
        """Write the exit statuses of the workers that have ended."""
        os.read(self._ended, _MAX_REQUEST_BYTES)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                descriptor = self._statuses.pop(ended[0])
                with suppress(BrokenPipeError):  # who started it has ended
                    os.write(descriptor, str(os.waitstatus_to_exitcode(ended[1])).encode())
                os.close(descriptor)

    def _close_in_worker(self) -> None:
        """Close what a worker has inherited of this server."""
        self._requests.close()
        for descriptor in (self._ended, self._signals, *self._statuses.values()):
            os.close(descriptor)


def main() -> int:
    """Serve requests; in a forked worker, run that."""
    forbid_core_dumps()  # also from being traced: its memory is that of all workers
    # Objects that collections no longer visit stay in memory that all workers share.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        arguments = ForkServer(requests).serve()
    if arguments is None:
        return 0
    sys.argv[1:] = arguments  # as plugins find them in a worker that isn't forked
    with suppress(AttributeError, OSError):  # Linux only: the name that ps and top show
        name = arguments[arguments.index("--name") + 1]
        ctypes.CDLL(None).prctl(_PR_SET_NAME, f"nfcli {name}".encode()[:15])
    return process.main(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
