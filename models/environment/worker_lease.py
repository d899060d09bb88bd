"""Who needs a worker that shells run: it goes on until the last of them has gone, whichever of them started it.

Each process holds a shared flock on `run/NAME.users` while it needs the worker. To end, a worker that has lost the
process that started it takes the flock for itself alone: it waits for the others, and who comes meanwhile waits for its
end. The kernel drops the locks of a process that dies, however it dies.
"""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

from ..errors import WorkerStartError
from .private_files import open_private

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
        self._stream = _open(lock_file)
        while not self._try_lock(fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                self.end()
                raise WorkerStartError(f"worker {lock_file.stem} is ending and doesn't come to its end: kill it")
            time.sleep(_PAUSE_SECONDS)

    def is_last(self) -> bool:
        """Give the need up; return whether nobody else has it, and then let nobody begin until `end`."""
        return self._try_lock(fcntl.LOCK_EX)

    def end(self) -> None:
        """Let others in. Safe to repeat."""
        self._stream.close()

    def _try_lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._stream, fcntl.LOCK_UN)  # not every system lets go of the former lock
            return False
        return True


def wait_until_unneeded(lock_file: Path) -> IO[bytes]:
    """Wait until nobody needs the worker; nobody can begin to while the file that is returned is open.

    Raises:
        EnvironmentFolderError, OSError: the file can't be opened privately.
    """
    stream = _open(lock_file)
    fcntl.flock(stream, fcntl.LOCK_EX)
    return stream


def _open(lock_file: Path) -> IO[bytes]:
    stream: IO[bytes] = open_private(lock_file.with_suffix(".users"), "ab")
    return stream
