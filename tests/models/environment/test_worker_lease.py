"""Leases of a worker: it ends once the last one is released, and none is granted while it ends."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nfcli.models.environment.file_lock import FileLock
from nfcli.models.environment.worker_lease import acquire_lease, wait_until_unused
from nfcli.models.errors import EnvironmentFolderError, WorkerStartError

SECONDS = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a worker's lock file; its name has a dot, as worker names may."""
    return tmp_path / "w.1.lock"


def lease(path: Path, seconds: float = SECONDS) -> FileLock:
    """Acquire a lease of the worker."""
    return acquire_lease(path, time.monotonic() + seconds)


class Waiting:
    """A worker that waits, in a thread, until it is unused."""

    def __init__(self, path: Path) -> None:
        self.has_begun, self.locks = threading.Event(), list[FileLock]()
        self._thread = threading.Thread(target=self._wait, args=(path,))
        self._thread.start()
        assert self.has_begun.wait(SECONDS)

    def _wait(self, path: Path) -> None:
        self.has_begun.set()
        self.locks.append(wait_until_unused(path))

    def lock(self) -> FileLock:
        """Join the thread; return the lock that excludes new leases."""
        self._thread.join(SECONDS)
        return self.locks[0]


def test_a_worker_waits_for_all_leases(path: Path) -> None:
    """Also for one that was granted while it was waiting."""
    first, second = lease(path), lease(path)
    waiting = Waiting(path)
    first.close()
    third = lease(path)
    second.close()
    assert waiting.locks == []
    third.close()
    waiting.lock().close()


def test_a_killed_process_releases_its_lease(path: Path) -> None:
    """The kernel does it."""
    code = "from nfcli.models.environment.worker_lease import acquire_lease as N; from pathlib import Path"
    code += f"; n = N(Path({str(path)!r}), 0)"
    command = [sys.executable, "-c", f"{code}; print('up', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        waiting = Waiting(path)
        process.kill()
    waiting.lock().close()


def test_no_lease_is_granted_while_the_worker_ends(path: Path) -> None:
    """A new one waits for that end; the wait is bounded."""
    ending = wait_until_unused(path)
    with pytest.raises(WorkerStartError, match=r"^worker w\.1 is not shutting down: kill it$"):
        lease(path, 0)
    timer = threading.Timer(0.05, ending.close)
    timer.start()
    lease(path).close()
    timer.join()


def test_the_last_lease_becomes_exclusive(path: Path) -> None:
    """No other one is granted until it is released."""
    first, second = lease(path), lease(path)
    assert first.try_acquire() is False
    assert second.try_acquire() is True
    with pytest.raises(WorkerStartError):
        lease(path, 0)
    for each in (first, second, second):
        each.close()
    lease(path).close()


def test_a_lease_that_is_not_the_last_is_released(path: Path) -> None:
    """It doesn't keep the other one from becoming exclusive."""
    first, second = lease(path), lease(path)
    assert (first.try_acquire(), second.try_acquire()) == (False, True)
    first.close()
    second.close()


def test_the_file_is_private_and_must_be(path: Path) -> None:
    """It is created 0600; one that is open to other users is refused."""
    lease(path).close()
    file = path.with_name("w.1.users")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    with pytest.raises(EnvironmentFolderError, match="chmod 600"):
        lease(path)
