"""Who needs a worker that shells run: it goes on until the last of them has gone, whichever of them started it.

Each process holds a shared flock on `run/NAME.users` while it needs the worker. To end, a worker that has lost the
process that started it takes the flock for itself alone: it waits for the others, and who comes meanwhile waits for its
end. The kernel drops the locks of a process that dies, however it dies.
"""

from __future__ import annotations

import time
from pathlib import Path

from ..errors import WorkerStartError
from .file_lock import FileLock

_PAUSE_SECONDS = 0.02


class WorkerNeed:
    """A process's need of one worker, until `end` or the end of the process.

    Args:
        lock_file: the worker's lock file (`models/environment/worker_lock.py`); the need is told beside it.
        deadline: monotonic seconds until which to wait while a worker that nobody needed any more ends.

    Raises:
        WorkerStartError: that worker has not ended by then.
        EnvironmentFolderError, OSError: the file can't be opened privately.
    """

    def __init__(self, lock_file: Path, deadline: float) -> None:
        self._lock = _open(lock_file)
        while not self._lock.try_acquire(shared=True):
            if time.monotonic() > deadline:
                self.end()
                raise WorkerStartError(f"worker {lock_file.stem} is ending and doesn't come to its end: kill it")
            time.sleep(_PAUSE_SECONDS)

    def is_last(self) -> bool:
        """Give the need up; return whether nobody else has it, and then let nobody begin until `end`."""
        return self._lock.try_acquire()

    def end(self) -> None:
        """Let others in. Safe to repeat."""
        self._lock.close()


def wait_until_unneeded(lock_file: Path) -> FileLock:
    """Wait until nobody needs the worker; nobody can begin to until the lock that is returned is closed.

    Raises:
        EnvironmentFolderError, OSError: the file can't be opened privately.
    """
    lock = _open(lock_file)
    lock.acquire()
    return lock


def _open(lock_file: Path) -> FileLock:
    return FileLock(lock_file.with_suffix(".users"))
