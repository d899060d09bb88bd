"""Who needs a worker: it ends when the last of them has gone, and nobody begins to need one that is ending."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nfcli.models.environment.file_lock import FileLock
from nfcli.models.environment.worker_lease import WorkerNeed, wait_until_unneeded
from nfcli.models.errors import EnvironmentFolderError, WorkerStartError

SECONDS = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a worker's lock file; its name has a dot, as worker names may."""
    return tmp_path / "w.1.lock"


def begin(path: Path, seconds: float = SECONDS) -> WorkerNeed:
    """Begin to need the worker."""
    return WorkerNeed(path, time.monotonic() + seconds)


class Waiting:
    """A worker that waits, in a thread, until nobody needs it."""

    def __init__(self, path: Path) -> None:
        self.has_begun, self.file = threading.Event(), list[FileLock]()
        self._thread = threading.Thread(target=self._wait, args=(path,))
        self._thread.start()
        assert self.has_begun.wait(SECONDS)

    def _wait(self, path: Path) -> None:
        self.has_begun.set()
        self.file.append(wait_until_unneeded(path))

    def end(self) -> FileLock:
        """Wait for the end of the waiting; return the file that keeps others out."""
        self._thread.join(SECONDS)
        return self.file[0]


def test_a_worker_waits_for_all_who_need_it(path: Path) -> None:
    """Also for one who came while it was waiting."""
    first, second = begin(path), begin(path)
    waiting = Waiting(path)
    first.end()
    third = begin(path)
    second.end()
    assert waiting.file == []
    third.end()
    waiting.end().close()


def test_a_process_that_is_killed_needs_nothing(path: Path) -> None:
    """The kernel tells, however it ended."""
    code = "from nfcli.models.environment.worker_lease import WorkerNeed as N; from pathlib import Path"
    code += f"; n = N(Path({str(path)!r}), 0)"
    command = [sys.executable, "-c", f"{code}; print('up', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        waiting = Waiting(path)
        process.kill()
    waiting.end().close()


def test_nobody_begins_while_the_worker_ends(path: Path) -> None:
    """Who comes then waits for its end, or is told that it doesn't come."""
    ending = wait_until_unneeded(path)
    with pytest.raises(WorkerStartError, match=r"worker w\.1 is ending and doesn't come to its end"):
        begin(path, 0)
    timer = threading.Timer(0.05, ending.close)
    timer.start()
    begin(path).end()
    timer.join()


def test_the_last_one_knows_and_keeps_others_out(path: Path) -> None:
    """The others only leave; after the end all is as before."""
    first, second = begin(path), begin(path)
    assert first.is_last() is False
    assert second.is_last() is True
    with pytest.raises(WorkerStartError):
        begin(path, 0)
    for need in (first, second, second):
        need.end()
    begin(path).end()


def test_who_is_not_the_last_has_left(path: Path) -> None:
    """One that gave its need up doesn't hold the other up."""
    first, second = begin(path), begin(path)
    assert (first.is_last(), second.is_last()) == (False, True)
    first.end()
    second.end()


def test_the_file_is_private_and_must_be(path: Path) -> None:
    """It is made 0600; one that is open to others is refused."""
    begin(path).end()
    file = path.with_name("w.1.users")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    with pytest.raises(EnvironmentFolderError, match="chmod 600"):
        begin(path)
