"""The process that forks workers: what it could leave behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def _raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such flag")
def test_fork_server_can_not_be_traced_and_leaves_no_core(tmp_path: Path) -> None:
    """Who could change its memory would change that of all workers."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Path(os.devnull).open("r+b") as nothing:
        server = subprocess.Popen(
            [sys.executable, "-X", "faulthandler=0", "-m", "nfcli.worker.fork_server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
            preexec_fn=_raise_limit,  # noqa: PLW1509
        )
        request = json.dumps(["--no-such-argument"]).encode() + b"\n"
        socket.send_fds(ours, [request], [nothing.fileno()] * 3)
        assert json.loads(ours.recv(1_000))["pid"] > 0
        assert resource.prlimit(server.pid, resource.RLIMIT_CORE)[0] == 0
        server.send_signal(signal.SIGABRT)
        _, status = os.waitpid(server.pid, 0)
        server.returncode = status
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)
